"""When centers exchange, and how an exchange is merged."""
