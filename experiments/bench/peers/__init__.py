"""Other ways to train clients, each in a process of its own, measured beside ours."""
