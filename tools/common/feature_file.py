"""Embeddings of images in an .npz file, with everything needed to use them.

Letters: N images, D dimensions of an embedding, M images that could not be read.
"""

import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from ember_reid.engine.deploy.metadata import ExportMetadata, parse_metadata
from ember_reid.engine.files import replaced_file
from ember_reid.tools.common.stored_network import StoredNetwork

# Exceptions of numpy and zipfile for damaged files and for other kinds of files.
UNREADABLE = (
    KeyError,
    ValueError,
    EOFError,
    OSError,
    AttributeError,
    TypeError,
    MemoryError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
)
# Maximum deviation of the length of an embedding from 1.
LENGTH_TOLERANCE = 1e-2


@dataclass(frozen=True)
class Features:
    """The content of a file of tools.extract.

    Attributes:
        embeddings: float32 [N, D] of unit length.
        paths, pids, camids: text [N]; pids and camids are empty if they are unknown.
        card: metadata of the network as JSON, see engine.deploy.metadata.ExportMetadata.
        weights, config: weight file of the network, and its configuration ("" for exports).
        plan: a digest of the images and the network, which identifies interrupted work.
        broken, reasons: text [M], the images that were left out, and the reasons.
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

    @property
    def network(self) -> StoredNetwork:
        return StoredNetwork(card=self.card, weights=self.weights, config=self.config)


def words(values: Sequence[object]) -> np.ndarray:
    """An array of text, even if it is empty."""
    return np.array([str(value) for value in values], dtype=str if values else "<U1")


def save_features(path: Path, features: Features) -> None:
    """Write the file, completely or not at all."""
    arrays = {field.name: np.asarray(getattr(features, field.name)) for field in fields(features)}
    save_arrays(path, arrays)


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an .npz file; it appears only when it is complete."""
    with (
        replaced_file(path) as draft,
        zipfile.ZipFile(draft, "w", zipfile.ZIP_STORED, allowZip64=True) as archive,
    ):
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)


def load_arrays(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Read arrays of an .npz file without executing anything.

    Raises:
        ValueError: the file is damaged or of another kind.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_sizes(archive, names)
        with np.load(path, allow_pickle=False) as content:
            return {name: content[name] for name in names}
    except UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is not a file of tools.extract: {reason}") from error


def _check_sizes(archive: zipfile.ZipFile, names: Sequence[str]) -> None:
    """Raise ValueError if a header announces more data than its member contains."""
    for name in names:
        info = archive.getinfo(f"{name}.npy")
        with archive.open(info) as member:
            version = np.lib.format.read_magic(member)
            read_header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }.get(version)
            if read_header is None:
                raise ValueError(f"{name} has format version {version}")
            shape, _, dtype = read_header(member)
        if any(size < 0 for size in shape):
            raise ValueError(f"{name} has the shape {shape}")
        size = dtype.itemsize
        for length in shape:
            size *= length
        if size > info.file_size:
            raise ValueError(f"{name} is incomplete")


def load_features(path: Path) -> tuple[Features, ExportMetadata]:
    """Read and verify a file of tools.extract.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or of another kind, or its embeddings are not usable.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; python -m tools.extract writes such files")
    arrays = load_arrays(path, [field.name for field in fields(Features)])
    single = {name: arrays.pop(name) for name in ("card", "weights", "config", "plan")}
    for name, array in single.items():
        if array.shape != () or array.dtype.kind != "U":
            raise ValueError(f"{path} is damaged: {name} is not text")
    texts = {name: str(array) for name, array in single.items()}
    try:
        metadata = parse_metadata(texts["card"])
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    _check_content(path, arrays, dim=metadata.embedding_dim)
    features = Features(
        embeddings=arrays["embeddings"],
        paths=arrays["paths"],
        pids=arrays["pids"],
        camids=arrays["camids"],
        card=texts["card"],
        weights=texts["weights"],
        config=texts["config"],
        plan=texts["plan"],
        broken=arrays["broken"],
        reasons=arrays["reasons"],
    )
    return features, metadata


def _check_content(path: Path, arrays: Mapping[str, np.ndarray], *, dim: int) -> None:
    """Raise ValueError unless all arrays fit together and the embeddings have unit length."""
    count = len(np.atleast_1d(arrays["paths"]))
    lengths = {"paths": count, "pids": count, "camids": count}
    lengths |= {"broken": arrays["broken"].size, "reasons": arrays["broken"].size}
    for name, length in lengths.items():
        if arrays[name].shape != (length,) or arrays[name].dtype.kind != "U":
            raise ValueError(
                f"{path} is damaged: {name} must be {length} texts, found {arrays[name].dtype} "
                f"of shape {arrays[name].shape}"
            )
    try:
        check_embeddings(arrays["embeddings"], count=count, dim=dim)
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def check_embeddings(embeddings: np.ndarray, *, count: int, dim: int) -> None:
    """Raise ValueError unless embeddings are float32 [count, dim], finite and of unit length."""
    if embeddings.dtype != np.float32 or embeddings.shape != (count, dim):
        raise ValueError(
            f"the embeddings must be float32 of shape {(count, dim)}, found {embeddings.dtype} of "
            f"shape {embeddings.shape}"
        )
    if not np.isfinite(embeddings).all():
        raise ValueError("the embeddings are not finite")
    norms = np.linalg.norm(embeddings, axis=1)
    worst = np.abs(norms - 1).max(initial=0)
    if worst > LENGTH_TOLERANCE:
        found = norms[np.abs(norms - 1).argmax()]
        raise ValueError(f"the embeddings must have unit length, found {found:.3g}")
