"""A model as it is called and scored."""
