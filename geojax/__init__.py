"""Trains one model across data centers that are far apart."""

__version__ = "0.1.0"
