"""Unlabeled training images and their batches."""
