"""How fast a synchronization over a WAN can be, whatever the schedule."""
