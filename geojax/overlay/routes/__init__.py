"""Which links a logical edge takes over a sparse WAN, and which detours there are."""
