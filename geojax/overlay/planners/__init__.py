"""The overlays: each plans trees over the WAN that it is shown."""
