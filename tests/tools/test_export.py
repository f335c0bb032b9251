import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ember_reid.data.batch import EmbeddingBatch
from ember_reid.engine import load_model
from ember_reid.engine.deploy.detect import detect_format
from ember_reid.engine.deploy.export import check_format
from ember_reid.engine.deploy.metadata import ExportMetadata, parse_metadata
from ember_reid.engine.deploy.network import DeployedNetwork, fingerprint
from ember_reid.modeling import ReidOutput
from ember_reid.tools.export.command import main
from ember_reid.tools.export.comparison import check_gate, compare_images, error_rates, run_batch
from PIL import Image

METADATA = ExportMetadata(
    fingerprint="0" * 16,
    size=(64, 32),
    interpolation="bilinear",
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    flip=False,
    embedding_dim=8,
)


class Corner(torch.nn.Module):
    """The embedding is the normalized upper left pixel, so it can be computed by hand."""

    def forward(self, images):
        return ReidOutput(embedding=images[:, :, 0, 0])


def deployed(model, **options):
    shift, scale = torch.full((3, 1, 1), 100.0), torch.full((3, 1, 1), 0.5)
    return DeployedNetwork(model, shift, scale, **options)


@pytest.fixture(scope="module")
def best(tiny_run):
    return tiny_run / "checkpoints" / "best.pt"


@pytest.fixture(scope="module")
def photos(tiny_market):
    return sorted((tiny_market / "query").glob("*.jpg"))


def test_pixels_are_normalized_inside_and_embeddings_have_length_1():
    # Normalized: 3, 0, -4.
    images = torch.tensor([106, 100, 92], dtype=torch.uint8).view(1, 3, 1, 1)
    assert torch.allclose(deployed(Corner())(images), torch.tensor([[0.6, 0.0, -0.8]]))


def test_flip_adds_the_mirror_image():
    images = torch.tensor([[106, 94], [100, 100], [92, 92]], dtype=torch.uint8).view(1, 3, 1, 2)
    # (3, 0, -4) + (-3, 0, -4) = (0, 0, -8)
    assert torch.allclose(deployed(Corner(), flip=True)(images), torch.tensor([[0.0, 0.0, -1.0]]))


def test_fingerprint_changes_with_weights_and_settings_and_with_nothing_else():
    weights = {
        "a.weight": torch.ones(2),
        "b.classifier.weight": torch.ones(3),
        "n.num_batches_tracked": torch.ones(1),
    }
    settings = {"INPUT.SIZE_TEST": (64, 32)}
    mark = fingerprint(weights, settings)
    assert len(mark) == 16 and mark == fingerprint(dict(reversed(weights.items())), settings)
    for unused in ("b.classifier.weight", "n.num_batches_tracked"):
        assert mark == fingerprint({**weights, unused: torch.zeros(5)}, settings)
    assert mark != fingerprint({**weights, "a.weight": torch.tensor([1.0, 1.0001])}, settings)
    assert mark != fingerprint(weights, {"INPUT.SIZE_TEST": (64, 33)})


def test_metadata_survives_json_and_ignores_unknown_fields():
    assert parse_metadata(METADATA.to_json()) == METADATA
    assert parse_metadata(json.dumps({**METADATA.to_dict(), "color": "red"})) == METADATA
    with pytest.raises(ValueError, match="not the metadata of an exported network"):
        parse_metadata("[1]")


def test_embed_accepts_paths_images_arrays_and_tensors(best, photos):
    model = load_model(best, device="cpu")
    expected = model.embed(photos)
    assert expected.shape == (len(photos), model.metadata.embedding_dim)
    assert torch.allclose(expected.norm(dim=1), torch.ones(len(photos)))
    pictures = [Image.open(path).convert("RGB") for path in photos]
    # [B, H, W, 3]
    arrays = np.stack([np.array(image) for image in pictures])
    tensors = torch.from_numpy(arrays).permute(0, 3, 1, 2)
    for given in (pictures, arrays, tensors, list(arrays), map(str, photos)):
        assert torch.allclose(model.embed(given, batch_size=3), expected, atol=1e-6)
    assert model.embed(photos[0]).shape == (1, model.metadata.embedding_dim)
    assert model.embed([]).shape == (0, model.metadata.embedding_dim)
    assert (
        load_model(best, "TEST.FLIP", not model.metadata.flip, device="cpu").metadata.fingerprint
        != model.metadata.fingerprint
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), "images must be uint8 in 0..255, found float32"),
        (
            torch.zeros(4, 4, 3, dtype=torch.uint8),
            r"has the shape \(4, 4, 3\), it must be \[3, H, W\]",
        ),
        ([7], "an image must be a path, a Pillow image, an array or a tensor, found int"),
        ("nowhere.jpg", "nowhere.jpg does not exist"),
    ],
)
def test_files_that_are_not_images_are_reported(best, given, message):
    with pytest.raises((ValueError, OSError), match=message):
        load_model(best, device="cpu").embed(given)


@pytest.mark.parametrize("name", ["person.ts", "person.pt2"])
def test_torch_exports_give_the_embeddings_of_the_checkpoint(best, photos, tmp_path, capsys, name):
    target = "torchscript" if name == "person.ts" else "exported-program"
    out = tmp_path / name
    assert main([str(best), "--to", target, "--out", str(out)]) == 0
    assert detect_format(out) == target and "mAP" in capsys.readouterr().out
    model, exported = load_model(best, device="cpu"), load_model(out, device="cpu", trust=True)
    assert exported.metadata == model.metadata
    for count in (1, 3):
        assert torch.allclose(
            exported.embed(photos[:count]), model.embed(photos[:count]), atol=1e-5
        )
    assert main([str(out), "--to", target, "--out", str(tmp_path / f"again_{name}")]) == 2
    assert f"is an exported network ({target}), give the checkpoint" in capsys.readouterr().err
    with pytest.raises(ValueError, match="configuration is fixed"):
        load_model(out, "TEST.FLIP", True)


def test_onnx_passes_the_gate_on_the_test_set_and_contains_its_metadata(
    best, photos, tmp_path, capsys
):
    pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
    pytest.importorskip("onnxscript", reason="the extra `export` is not installed")
    out = tmp_path / "person.onnx"
    assert main([str(best), "--out", str(out)]) == 0
    measured = json.loads((tmp_path / "person.onnx.json").read_text())
    (name,) = measured["compared"]
    assert measured["compared"][name]["lowest_cosine"] > 0.9999
    assert measured["compared"][name]["mAP"] == pytest.approx(
        measured["compared"][name]["exported_mAP"], abs=1e-6
    )
    assert set(measured["latency"]) == {"1", "32"} and "ms exported" in capsys.readouterr().out
    model, exported = load_model(best, device="cpu"), load_model(out)
    assert exported.metadata == model.metadata and exported.metadata.input.startswith("uint8 RGB")
    assert torch.allclose(exported.embed(photos[:3]), model.embed(photos[:3]), atol=1e-5)

    calibration = str(photos[0].parent)
    small = tmp_path / "small.onnx"
    assert main([str(best), "--out", str(small), "--int8", calibration, "--max-drop", "1"]) == 0
    quantized = load_model(small)
    assert (
        quantized.metadata.precision == "int8"
        and quantized.metadata.fingerprint == model.metadata.fingerprint
    )
    assert (quantized.embed(photos) * model.embed(photos)).sum(dim=1).min() > 0.9
    assert b"QuantizeLinear" in small.read_bytes()


def test_half_keeps_the_head_in_float32(best, photos, tmp_path):
    exact, half = load_model(best, device="cpu"), load_model(best, device="cpu", half=True)
    assert (
        half.metadata.precision == "half"
        and half.metadata.fingerprint == exact.metadata.fingerprint
    )
    assert (half.embed(photos) * exact.embed(photos)).sum(dim=1).min() > 0.999


def test_clips_are_the_mean_of_their_frames():
    embedder = SimpleNamespace(embed_batch=deployed(Corner()))
    clip = torch.tensor([[[106, 100, 92], [100, 104, 97]]], dtype=torch.uint8).view(1, 2, 3, 1, 1)
    # (0.6, 0, -0.8) and (0, 2, -1.5) / 2.5 = (0, 0.8, -0.6)
    assert torch.allclose(run_batch(embedder, clip), torch.tensor([[0.3, 0.4, -0.7]]))


def test_comparison_sees_every_image(best, photos):
    model = load_model(best, device="cpu")
    assert compare_images(model, model, photos)["images"]["num_images"] == len(photos)
    assert compare_images(model, model, photos)["images"]["lowest_cosine"] == pytest.approx(1)


def test_the_gate_refuses():
    found = {"lowest_cosine": 0.99995, "mAP": 0.8, "exported_mAP": 0.796}
    check_gate({"market1501": found}, precision="float32", max_drop=0.005)
    with pytest.raises(
        ValueError, match=r"on market1501 mAP drops by 0.0040, --max-drop allows 0.001"
    ):
        check_gate({"market1501": found}, precision="float32", max_drop=0.001)
    found["lowest_cosine"] = 0.9998
    check_gate({"market1501": found}, precision="int8", max_drop=0.005)
    with pytest.raises(ValueError, match="cosine 0.999800 with PyTorch's, it must be above 0.9999"):
        check_gate({"market1501": found}, precision="float32", max_drop=0.005)


def test_a_refused_export_leaves_nothing_behind(best, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("ember_reid.tools.export.comparison.MIN_COSINE", 1.1)
    assert main([str(best), "--to", "torchscript", "--out", str(tmp_path / "x.ts")]) == 2
    assert "export: not written: " in capsys.readouterr().err and list(tmp_path.iterdir()) == []


def test_a_drop_of_map_beyond_the_limit_refuses_and_leaves_what_was_there(
    best, tmp_path, capsys, monkeypatch
):
    out = tmp_path / "x.ts"
    out.write_bytes(b"an older one")
    words = [str(best), "--to", "torchscript", "--out", str(out), "--max-drop", "0.05"]
    scores = iter([{"mAP": 0.9}, {"mAP": 0.8}, {"mAP": 0.9}, {"mAP": 0.86}])
    monkeypatch.setattr(
        "ember_reid.tools.export.comparison.retrieval_scores", lambda *arguments: next(scores)
    )
    assert main(words) == 2
    assert "mAP drops by 0.1000, --max-drop allows 0.05" in capsys.readouterr().err
    assert out.read_bytes() == b"an older one" and list(tmp_path.iterdir()) == [out]
    assert main(words) == 0 and detect_format(out) == "torchscript"


def test_error_rates_at_a_threshold_by_hand():
    # Two identities at 0 and 90 degrees. The gallery, from another camera, is at 60 (distance 0.5)
    # and 90 degrees (0), with junk at 0.
    degrees = torch.deg2rad(torch.tensor([0.0, 90, 60, 90, 0]))
    embedded = EmbeddingBatch(
        embeddings=torch.stack([degrees.cos(), degrees.sin()], dim=1),
        pids=torch.tensor([1, 2, 1, 2, -1]),
        camids=torch.tensor([0, 0, 1, 1, 1]),
        indices=torch.arange(5),
    )
    # Same pairs at 0.5 and 0; different ones at 1 - cos 90 = 1 and 1 - cos 30 = 0.134.
    for threshold, false_matches, false_non_matches in (
        (0.1, 0, 0.5),
        (0.4, 0.5, 0.5),
        (0.6, 0.5, 0),
    ):
        rates = error_rates(embedded, 2, threshold)
        assert rates == {
            "false_match_rate": false_matches,
            "false_non_match_rate": false_non_matches,
        }


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        ValueError,
        match="onnx needs onnx, onnxscript, onnxruntime, which is not installed: python -m pip",
    ):
        check_format("onnx")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["x.pt", "--out", "x.bin", "--to", "tflite"],
            "the export target is 'tflite', it must be one of onnx,",
        ),
        (
            ["x.pt", "--out", "x.pt2", "--to", "torchscript", "--int8", "d"],
            "--int8 needs --to onnx or openvino, not torchscript",
        ),
        (
            ["x.pt", "--out", "x.pt2", "--to", "exported-program", "--half", "--images", "d"],
            "are checked by mAP",
        ),
        (
            ["x.pt", "--out", "x.pt2", "--to", "torchscript", "--max-drop", "5"],
            "--max-drop is 5, it is a fraction",
        ),
        (
            ["x.pt", "--out", "x.onnx", "--to", "torchscript"],
            "with --to torchscript it must end in .ts",
        ),
        (
            ["nowhere.pt", "--out", "x.ts", "--to", "torchscript"],
            "weight file nowhere.pt does not exist",
        ),
    ],
)
def test_user_errors_are_one_line(capsys, arguments, message):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("export: ") and message in error and error.count("\n") == 1
