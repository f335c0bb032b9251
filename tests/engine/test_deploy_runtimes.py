"""OpenVINO, TensorRT and Core ML give the embeddings of PyTorch, where they are installed."""

import importlib.util
import sys
from dataclasses import replace

import pytest
import torch
from ember_reid.engine import load_model
from ember_reid.engine.deploy.build import build_deployed_network, read_inference_config
from ember_reid.engine.deploy.export import write_network
from ember_reid.engine.deploy.openvino import quantize_openvino
from ember_reid.engine.deploy.targets import FORMATS, encode_pixels
from torch.nn.functional import cosine_similarity

pytestmark = pytest.mark.extras
# Format: (packages, whether this machine can run it).
NEEDED = {
    "openvino": (("openvino", "nncf"), True),
    "tensorrt": (("tensorrt",), torch.cuda.is_available()),
    "coreml": (("coremltools",), sys.platform == "darwin"),
}


def need(format: str) -> None:
    """Skip the test where the runtime does not run."""
    packages, can_run = NEEDED[format]
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing or not can_run:
        pytest.skip(f"{format} does not run here: {', '.join(missing) or 'other hardware'}")


@pytest.fixture(scope="module")
def checkpoint(tiny_run):
    return tiny_run / "checkpoints" / "best.pt"


def deployed(checkpoint, format: str, **options):
    words = ["TEST.WEIGHT", str(checkpoint), "DEVICE", "cpu"]
    cfg = read_inference_config(None, words)
    return build_deployed_network(cfg, pixels=FORMATS[format].pixels, **options)


@pytest.mark.parametrize("precision", ["float32", "half"])
@pytest.mark.parametrize("format", NEEDED)
def test_embeddings_are_those_of_pytorch(format, precision, checkpoint, tmp_path):
    need(format)
    network, metadata = deployed(checkpoint, format)
    metadata = replace(metadata, precision=precision)
    path = tmp_path / f"x{FORMATS[format].suffix}"
    write_network(network, metadata, path, format=format)
    exported = load_model(path, device="cpu", trust=True)
    assert exported.metadata == metadata
    reference = load_model(checkpoint, device="cpu")
    # Batches of 1 and of more than the largest batch of an engine.
    for count in (1, 65):
        images = torch.randint(0, 256, (count, 3, *metadata.size), dtype=torch.uint8)
        cosines = cosine_similarity(exported.embed_batch(images), reference.embed_batch(images))
        assert cosines.min() > (0.99999 if precision == "float32" else 0.999)


def test_openvino_in_8_bits_is_close(checkpoint, tmp_path):
    need("openvino")
    network, metadata = deployed(checkpoint, "openvino")
    path = tmp_path / "x_openvino_model"
    write_network(network, metadata, path, format="openvino")
    whole = (path / "network.bin").stat().st_size
    images = torch.randint(0, 256, (32, 3, *metadata.size), dtype=torch.uint8)
    quantize_openvino(path, metadata, [encode_pixels(images, metadata.pixels)])
    exported = load_model(path, device="cpu")
    assert exported.metadata.precision == "int8"
    assert (path / "network.bin").stat().st_size < whole
    reference = load_model(checkpoint, device="cpu").embed_batch(images)
    found = exported.embed_batch(images)
    assert cosine_similarity(found, reference).mean() > 0.98
    # The normalization to length 1 is not quantized.
    assert (found.norm(dim=1) - 1).abs().max() < 1e-5


@pytest.mark.parametrize("damage", ["cut", "other"])
def test_damaged_openvino_models_are_refused_in_one_line(damage, checkpoint, tmp_path):
    need("openvino")
    network, metadata = deployed(checkpoint, "openvino")
    path = tmp_path / "x_openvino_model"
    write_network(network, metadata, path, format="openvino")
    xml = path / "network.xml"
    text = xml.read_text()
    xml.write_text(text[: len(text) // 2] if damage == "cut" else text.replace("ember-reid", "x"))
    message = "not a model that OpenVINO can run" if damage == "cut" else "has no metadata"
    with pytest.raises(ValueError, match=message):
        load_model(path, device="cpu")
