"""Figures with a slider, for the site and for a notebook."""
