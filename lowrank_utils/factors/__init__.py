"""The mathematics of one matrix: its factors, its ranks, and what each loses. No module of torch."""
