"""Compiled kernels, optional: `evaluate` does the same without them, slower."""
