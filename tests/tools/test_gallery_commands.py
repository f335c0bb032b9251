import shutil

import pytest
from ember_reid.engine.deploy.metadata import ExportMetadata
from ember_reid.tools.common.feature_file import load_features
from ember_reid.tools.common.stored_network import StoredNetwork
from ember_reid.tools.gallery import main
from ember_reid.tools.gallery.store import Gallery
from ember_reid.tools.search.command import main as search


@pytest.fixture(scope="module")
def best(tiny_run, tmp_path_factory):
    """A copy of the weights, so that another test's calibration is not found."""
    folder = tmp_path_factory.mktemp("gallery_weights")
    return shutil.copy(tiny_run / "checkpoints" / "best.pt", folder / "best.pt")


@pytest.fixture(scope="module")
def filled(best, tiny_market, tmp_path_factory):
    path = tmp_path_factory.mktemp("gallery") / "people.db"
    images = str(tiny_market / "bounding_box_test")
    assert main(["add", str(path), f"weights={best}", "--ids", "prefix", images]) == 0
    return path


def test_commands_add_query_and_export(filled, tiny_market, tmp_path, capsys):
    photo = sorted((tiny_market / "bounding_box_test").glob("*.jpg"))[3]
    capsys.readouterr()
    words = ["query", str(filled), str(photo), "--threshold", "0.001"]
    assert main([*words, "--json", str(tmp_path / "found.json")]) == 0
    assert f"{photo}: {photo.name[:4]} at 0.000" in capsys.readouterr().out
    exported = tmp_path / "people.npz"
    assert main(["export", str(filled), "--out", str(exported)]) == 0
    features, _ = load_features(exported)
    assert len(features.paths) == len(list((tiny_market / "bounding_box_test").glob("*.jpg")))
    assert search([str(exported), str(photo), "--out", str(tmp_path / "found")]) == 0
    assert main(["export", str(filled), "--out", str(tmp_path / "people.csv")]) == 0
    lines = (tmp_path / "people.csv").read_text().splitlines()
    assert lines[0] == "path,pid,camid" and len(lines) == len(features.paths) + 1


def test_add_can_be_repeated_and_leaves_out_damaged_images(filled, tiny_market, tmp_path, capsys):
    path = shutil.copy(filled, tmp_path / "people.db")
    images = str(tiny_market / "bounding_box_test")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"not an image")
    capsys.readouterr()
    assert main(["add", str(path), "--ids", "prefix", images]) == 0
    assert "\n0 images added" in capsys.readouterr().out
    assert main(["add", str(path), "--name", "Anna", str(broken)]) == 0
    output = capsys.readouterr().out
    assert "left out:" in output and "0 images added" in output
    assert main(["add", str(path), "--identify", "--threshold", "0.01", images]) == 0
    assert "images of known identities, 0 of new ones" in capsys.readouterr().out


def test_list_merge_and_forget(filled, tmp_path, capsys):
    path = shutil.copy(filled, tmp_path / "people.db")
    with Gallery(path) as gallery:
        first, second = gallery.snapshot().names[:2]
    capsys.readouterr()
    assert main(["merge", str(path), first, second]) == 0
    assert main(["forget", str(path), first]) == 0
    assert main(["list", str(path)]) == 0
    output = capsys.readouterr().out
    assert f"images moved to {first}" in output and f"\n{first}:" not in output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["add", "{db}", "x.jpg"], "x.jpg does not exist"),
        (["add", "{db}"], "no images are named"),
        (["add", "{db}", "{photo}"], "the identity on"),
        (["add", "{db}", "{photo}", "--identify"], "--identify needs a threshold"),
        (["add", "{db}", "{photo}", "--identify", "--name", "A"], "exclude each other"),
        (["add", "new.db", "{photo}", "--name", "A"], "to create it, name the network"),
        (["query", "none.db", "{photo}"], "there is no gallery"),
        (["query", "{db}", "{photo}", "--top", "0"], "--top is 0"),
        (["query", "{db}", "{photo}", "--threshold", "3"], "--threshold is 3"),
        (["forget", "{db}", "nobody"], "there is no identity 'nobody'"),
        (["export", "{db}", "--out", "x.txt"], "must end in .npz or .csv"),
    ],
)
def test_mistakes_cost_one_line(words, message, filled, tiny_market, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photo = sorted((tiny_market / "bounding_box_test").glob("*.jpg"))[0]
    capsys.readouterr()
    assert main([word.format(db=filled, photo=photo) for word in words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_another_network_is_refused(best, tiny_market, tmp_path, capsys):
    path = tmp_path / "people.db"
    card = ExportMetadata("another", (32, 16), "bilinear", (0.5,) * 3, (0.5,) * 3, False, 16)
    Gallery.create(path, StoredNetwork(card.to_json(), weights="", config="")).close()
    before = path.read_bytes()
    photo = sorted((tiny_market / "bounding_box_test").glob("*.jpg"))[0]
    assert main(["add", str(path), f"weights={best}", "--name", "A", str(photo)]) == 2
    error = capsys.readouterr().err
    assert "embeddings of two networks do not compare" in error and error.count("\n") == 1
    assert path.read_bytes() == before
