"""What the nodes hold in the end, and what clients were told, as a verdict: equal or not, lost or not, and why."""
