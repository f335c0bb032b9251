"""Frozen teachers: their input, their outputs and how their classes map to the student's."""
