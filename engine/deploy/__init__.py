"""Trained networks in deployment: from images to embeddings, in PyTorch or in an exported file."""
