"""Trained networks outside of training: images in, embeddings out; here or in an exported file."""
