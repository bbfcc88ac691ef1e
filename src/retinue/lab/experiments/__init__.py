"""The experiments of the laboratory, one module each."""
