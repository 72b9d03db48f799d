"""Trains one model across data centers that are far apart."""
