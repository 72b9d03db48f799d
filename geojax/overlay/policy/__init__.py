"""What a planner returns, how vectors are cut and placed on it, and what it would cost."""
