"""The systems that are compared, one module each: how they are found, configured, started and loaded."""
