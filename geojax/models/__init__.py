"""What is trained: Flax modules, found by name without importing JAX."""
