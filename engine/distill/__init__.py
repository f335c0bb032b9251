"""Distillation: teachers, handlers and losses that are added to a training.

See docs/explanation/distillation.md.
"""
