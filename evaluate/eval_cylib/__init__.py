"""Compiled kernels of the evaluation (optional): `evaluate.ranking` and `evaluate.reranking` run without them, slower."""
