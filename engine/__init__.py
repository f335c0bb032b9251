"""Ignite engines for training and evaluation, the handlers around them, and trained networks in use.

`from engine import load_model` is all that a program needs that only wants embeddings.
"""

from ember_reid.engine.deploy.build import load_model

__all__ = ["load_model"]
