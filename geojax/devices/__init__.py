"""Devices that hold a worker's data: the worker is their base station, and they are its fleet."""
