"""Compiled kernels. They are optional: without them, numpy and torch compute the same, slower."""
