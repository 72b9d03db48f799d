"""Who takes part in a step or a round."""
