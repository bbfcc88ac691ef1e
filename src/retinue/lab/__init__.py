"""The laboratory: checking histories, simulating whole clusters, and the experiments."""
