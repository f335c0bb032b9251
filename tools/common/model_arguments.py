"""Command-line arguments of the tools that load a model or compare embeddings."""

import argparse


def add_trust_argument(parser: argparse.ArgumentParser) -> None:
    """`--trust`: also load TorchScript files and exported programs, which execute code."""
    parser.add_argument(
        "--trust",
        action="store_true",
        help="also load TorchScript and .pt2 files; they are programs and can execute any code "
        "(ONNX files and checkpoints need no trust)",
    )


def add_threshold_argument(parser: argparse.ArgumentParser) -> None:
    """`--threshold`: see `stored_network.choose_threshold`."""
    parser.add_argument(
        "--threshold",
        default="auto",
        metavar="DISTANCE",
        help="auto (the calibrated one) | none | a cosine distance",
    )
