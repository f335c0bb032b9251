"""Choices that make training fast on a CPU."""
