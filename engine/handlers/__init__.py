"""Handlers around the training step. Each one documents its engine, events and effect."""
