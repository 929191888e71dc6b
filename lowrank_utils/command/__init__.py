"""The package from the command line."""
