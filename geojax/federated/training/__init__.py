"""How clients train on this process's devices; loads JAX."""
