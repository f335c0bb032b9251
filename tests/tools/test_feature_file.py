"""Files of embeddings are verified when they are read."""

import io
import zipfile
from dataclasses import fields, replace

import numpy as np
import pytest
from ember_reid.engine.deploy.build import load_model
from ember_reid.tools.common.feature_file import (
    Features,
    check_embeddings,
    load_arrays,
    load_features,
    save_arrays,
    save_features,
    words,
)
from ember_reid.tools.extract.command import _read_part


@pytest.fixture(scope="module")
def features(tiny_run) -> Features:
    """Three embeddings, with the metadata of a real network."""
    metadata = load_model(tiny_run / "checkpoints" / "best.pt", device="cpu").metadata
    embeddings = np.zeros((3, metadata.embedding_dim), np.float32)
    embeddings[:, 0] = 1
    names = words(["a", "b", "c"])
    card = metadata.to_json()
    return Features(embeddings, names, names, names, card, "w.pt", "", "p", words([]), words([]))


def test_what_is_written_is_read(features, tmp_path):
    save_features(tmp_path / "f.npz", features)
    read, _ = load_features(tmp_path / "f.npz")
    for field in fields(Features):
        assert np.array_equal(getattr(read, field.name), getattr(features, field.name)), field.name
    with np.load(tmp_path / "f.npz") as content:
        assert content["embeddings"].shape == features.embeddings.shape


def changed(embeddings: np.ndarray, value: float) -> np.ndarray:
    copy = embeddings.copy()
    copy[1, 0] = value
    return copy


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: {"embeddings": changed(f.embeddings, np.nan)}, "embeddings are not finite"),
        (lambda f: {"embeddings": changed(f.embeddings, 2)}, "must have unit length, found 2"),
        (lambda f: {"embeddings": f.embeddings[:2]}, r"must be float32 of shape \(3, "),
        (lambda f: {"embeddings": f.embeddings.astype(np.float64)}, "found float64"),
        (lambda f: {"pids": f.pids[:1]}, "pids must be 3 texts"),
        (lambda f: {"paths": np.arange(3)}, "paths must be 3 texts, found int64"),
        (lambda f: {"reasons": words(["x"])}, "reasons must be 0 texts"),
        (lambda f: {"weights": words(["x"])}, "weights is not text"),
        (lambda f: {"card": "{"}, "npz is damaged: this is not the metadata of"),
    ],
)
def test_content_that_does_not_fit_is_refused(features, tmp_path, change, message):
    save_features(tmp_path / "f.npz", replace(features, **change(features)))
    with pytest.raises(ValueError, match=message):
        load_features(tmp_path / "f.npz")


def test_a_header_cannot_announce_more_than_the_file_contains(tmp_path):
    buffer = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": (10**9, 6400)}
    np.lib.format.write_array_header_1_0(buffer, header)
    with zipfile.ZipFile(tmp_path / "f.npz", "w") as archive:
        archive.writestr("embeddings.npy", buffer.getvalue())
    with pytest.raises(ValueError, match="embeddings is incomplete"):
        load_arrays(tmp_path / "f.npz", ["embeddings"])


def test_objects_are_never_unpickled(tmp_path):
    np.savez(tmp_path / "f.npz", embeddings=np.array([print], dtype=object))
    with pytest.raises(ValueError, match="is not a file of tools.extract"):
        load_arrays(tmp_path / "f.npz", ["embeddings"])


def test_embeddings_by_hand():
    check_embeddings(np.array([[0.6, 0.8]], np.float32), count=1, dim=2)
    with pytest.raises(ValueError, match="found 1.2"):
        check_embeddings(np.array([[0, 1.2]], np.float32), count=1, dim=2)


@pytest.mark.parametrize(
    "change",
    [
        {"positions": np.array([0, 0])},
        {"positions": np.array([0, 5])},
        {"broken": np.array([7])},
        {"embeddings": np.ones((2, 2), np.float32)},
    ],
)
def test_damaged_parts_count_as_missing(tmp_path, change):
    part = {
        "embeddings": np.eye(2, dtype=np.float32),
        "positions": np.array([0, 2]),
        "broken": np.array([1]),
        "reasons": words(["unreadable"]),
    }
    path = tmp_path / "part.npz"
    assert _read_part(path, 3, 2) is None
    save_arrays(path, part)
    assert _read_part(path, 3, 2) is not None
    path.write_bytes(path.read_bytes()[:-40])
    assert _read_part(path, 3, 2) is None
    save_arrays(path, part | change)
    assert _read_part(path, 3, 2) is None
