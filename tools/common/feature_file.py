"""Embeddings of people's own images as one .npz file, with what is needed to use them again.

Letters: N images, D dimensions of an embedding, M images that could not be read.
"""

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ember_reid.engine.deploy.metadata import ExportMetadata, parse_metadata


class Features(NamedTuple):
    """What tools.extract writes.

    Attributes:
        embeddings: float32 [N, D] of length 1.
        paths, pids, camids: words [N]; pids and camids are empty where nobody said.
        card: the network's metadata as JSON, see engine.deploy.metadata.ExportMetadata.
        weights, config: the file of the network, and its configuration ("" for exported networks).
        plan: a digest of the images and the network, by which unfinished work is recognized.
        broken, reasons: words [M], the images left out and why.
    """

    embeddings: np.ndarray
    paths: np.ndarray
    pids: np.ndarray
    camids: np.ndarray
    card: str
    weights: str
    config: str
    plan: str
    broken: np.ndarray
    reasons: np.ndarray


def words(values: Sequence[str]) -> np.ndarray:
    """An array of text, also when there is none."""
    return np.array([str(value) for value in values], dtype=str if values else "<U1")


def save_features(path: Path, features: Features) -> None:
    """Write `path` whole or not at all."""
    save_arrays(path, features._asdict())


def save_arrays(path: Path, arrays: dict[str, object]) -> None:
    """An .npz file that appears when it is complete."""
    draft = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        with open(draft, "wb") as file:
            np.savez(file, **arrays)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def load_features(path: Path) -> tuple[Features, ExportMetadata]:
    """A file of tools.extract and the network's metadata in it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is another kind of file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; python -m tools.extract writes such files")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in Features._fields}
    except (
        KeyError,
        ValueError,
        EOFError,
        zipfile.BadZipFile,
        OSError,
        AttributeError,
        TypeError,
    ) as error:
        raise ValueError(f"{path} is no file of tools.extract: {error}") from error
    texts = {name: str(arrays[name]) for name in ("card", "weights", "config", "plan")}
    features = Features(**{**arrays, **texts})
    return features, parse_metadata(features.card)
