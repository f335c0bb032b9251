"""Write the embeddings of images to an .npz file."""

from ember_reid.tools.extract.command import main

__all__ = ["main"]
