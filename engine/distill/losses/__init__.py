"""Losses between the outputs of a student and of its teachers."""
