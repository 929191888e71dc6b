"""The rank of one layer."""
