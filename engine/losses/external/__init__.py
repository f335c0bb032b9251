"""Losses of plug-ins and of pytorch-metric-learning."""
