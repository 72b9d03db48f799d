"""Benchmarks: each module is a `python -m` entry and prints a table."""
