"""Linear layers in low rank."""
