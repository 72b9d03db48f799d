"""Figures that need the WAN beside the run: distance from the bound, error of the view."""
