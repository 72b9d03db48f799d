"""Where a node's work runs and what it is charged: devices, host work, plans, bounded waits."""
