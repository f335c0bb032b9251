"""Trained networks outside of training: photographs in, embeddings out, in this process or in an exported file."""
