"""Find the most similar images in a file of embeddings."""

from ember_reid.tools.search.command import main

__all__ = ["main"]
