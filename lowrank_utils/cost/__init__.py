"""What a model costs: numbers, bytes, multiply-adds, time."""
