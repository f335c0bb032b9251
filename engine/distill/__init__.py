"""Distillation: teachers, views and terms that are added to a training run. See docs/distillation.md."""
