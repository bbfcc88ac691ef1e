"""retinue: a key-value store that one leader replicates to its followers, with a write quorum you choose."""

__version__ = "0.1.0"
