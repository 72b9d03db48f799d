"""Inside one center: its mesh, local steps, pace, evaluation and outer optimizer."""
