"""Real processes on plain loopback, and what they may use of the processor."""
