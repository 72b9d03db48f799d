"""Which path a chunk takes: its tree's link, or a source-routed detour."""
