"""Ignite engines for training and evaluation, and the handlers around them."""
