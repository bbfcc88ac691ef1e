"""Benchmarks that are run by hand: against other systems (`peers.py`), delays, memory and scaling."""
