"""Frozen teachers: their input, their outputs, and the mapping of their classes to the student."""
