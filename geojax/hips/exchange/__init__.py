"""How the offers of a round become one result: over trees, or at global servers."""
