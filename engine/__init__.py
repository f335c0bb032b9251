"""Ignite engines for training and evaluation, their handlers, distillation and deployment.

`from ember_reid.engine import load_model` is enough for programs that only need embeddings.
"""

from ember_reid.engine.deploy.build import load_model

__all__ = ["load_model"]
