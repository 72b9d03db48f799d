"""Puts the parts of one node together: configuration in, roles out."""

from geojax.assemble.checks import check
from geojax.assemble.roles import run_node
from geojax.assemble.setup import Setup

__all__ = ["Setup", "check", "run_node"]
