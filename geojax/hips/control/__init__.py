"""Who lives, which rounds may begin, and by which policy."""
