"""Command-line arguments of the tools that load a model."""

import argparse


def add_trust_argument(parser: argparse.ArgumentParser) -> None:
    """`--trust`: also load TorchScript files and exported programs, which execute code."""
    parser.add_argument(
        "--trust",
        action="store_true",
        help="also load TorchScript and .pt2 files; they are programs and can execute any code "
        "(ONNX files and checkpoints need no trust)",
    )
