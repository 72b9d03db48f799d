"""Along which routes an update travels: network view → policy (weighted rooted trees)."""
