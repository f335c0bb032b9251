"""Files of embeddings with unusual arrays and damaged bytes."""

import io
import json
import zipfile

import numpy as np
import pytest
from ember_reid.tools.extract import main as extract
from ember_reid.tools.search import main as search
from hypothesis import given
from hypothesis import strategies as st

from tests.hostile import strategies
from tests.hostile.harness import check


@pytest.fixture(scope="session")
def feature_file(tiny_run, tiny_market, tmp_path_factory):
    """A file of tools.extract with the embeddings of the tiny gallery."""
    path = tmp_path_factory.mktemp("features") / "features.npz"
    weights = ["TEST.WEIGHT", str(tiny_run / "checkpoints" / "best.pt"), "DEVICE", "cpu"]
    images = [str(tiny_market / "bounding_box_test"), "--ids", "prefix", "--no-progress"]
    assert extract([*weights, *images, "--out", str(path)]) == 0
    return path


@pytest.fixture(scope="session")
def arrays(feature_file):
    with np.load(feature_file) as archive:
        return {name: archive[name] for name in archive.files}


def search_words(path, query, out):
    return [str(path), str(query), "--out", str(out), "--threshold", "none"]


@given(data=st.data(), as_query=st.booleans())
def test_arrays(data, as_query, arrays, feature_file, fresh):
    folder = fresh("features")
    changed = dict(arrays)
    for name in data.draw(st.lists(st.sampled_from(sorted(arrays)), min_size=1, max_size=2)):
        value = data.draw(strategies.unusual_arrays() | strategies.texts.map(np.array) | st.none())
        changed[name] = value
        if value is None:
            del changed[name]
            break
    path = folder / "changed.npz"
    np.savez(path, **changed)
    files = (feature_file, path) if as_query else (path, feature_file)
    check("feature arrays", search, search_words(*files, folder / "found"))


@given(data=st.data())
def test_metadata(data, arrays, feature_file, fresh):
    folder = fresh("features")
    card = json.loads(str(arrays["card"]))
    changed = data.draw(strategies.changed_contents(card, strategies.values))
    path = folder / "changed.npz"
    np.savez(path, **{**arrays, "card": np.array(json.dumps(changed))})
    check("feature metadata", search, search_words(path, feature_file, folder / "found"))


@given(data=st.data())
def test_bytes(data, feature_file, fresh):
    folder = fresh("features")
    path = folder / "changed.npz"
    path.write_bytes(data.draw(strategies.changed_bytes(feature_file.read_bytes())))
    check("feature bytes", search, search_words(path, feature_file, folder / "found"))


def test_a_header_does_not_decide_how_much_memory_is_used(arrays, feature_file, fresh):
    folder = fresh("features")
    path = folder / "changed.npz"
    np.savez(path, **arrays)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (10**12, 16)}
    )
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(folder / "b.npz", "w") as target:
        for name in source.namelist():
            small = name == "embeddings.npy"
            target.writestr(name, header.getvalue() if small else source.read(name))
    outcome = check("feature header", search, search_words(folder / "b.npz", feature_file, "f"))
    assert outcome.code == 2
