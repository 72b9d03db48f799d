"""Every node of a run in one process: a clock that jumps, and a fluid network."""
