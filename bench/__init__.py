"""Benchmarks that argue: each file asks one question, compares like with like, and ends in one JSON object."""
