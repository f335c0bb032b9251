"""Measure speed and memory on this machine."""

from ember_reid.tools.common.cli import CommandGroup

DESCRIPTION = """
Measure speed and memory on this machine. Each measurement is compared with a reference from the
same run. docs/benchmarks/performance.md contains results and explains them.

    python -m tools.benchmark evaluate --shape market1501 --rerank
"""
COMMANDS = {
    "cluster": "one clustering of synthetic embeddings",
    "distill": "what distillation adds to a training step",
    "evaluate": "evaluation and re-ranking on synthetic features",
    "host": "host time of a captured training step",
    "latency": "size and speed of trained networks",
    "link": "grouping of synthetic tracklets into identities",
    "search": "search in synthetic embeddings, exact and with faiss",
    "serve": "latency of a running gallery server under load",
    "train": "parts of a training step",
    "triplet": "forms of the weighted triplet loss at the start of a training",
}

main = CommandGroup(
    "benchmark",
    DESCRIPTION,
    {name: (f"ember_reid.tools.benchmark.{name}:main", text) for name, text in COMMANDS.items()},
).main
