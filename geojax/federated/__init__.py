"""Federated algorithms: FedAvg and what others made of it, and how clients are executed."""
