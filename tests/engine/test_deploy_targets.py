"""What other programs expect of an exported network: input, names and metadata, by hand."""

import json
from dataclasses import replace

import pytest
import torch
from ember_reid.engine.deploy.export import write_network
from ember_reid.engine.deploy.metadata import INPUTS, PIXELS, ExportMetadata, parse_metadata
from ember_reid.engine.deploy.network import DeployedNetwork
from ember_reid.engine.deploy.runtimes import open_exported
from ember_reid.engine.deploy.targets import (
    FORMATS,
    TARGETS,
    Export,
    adapt_normalization,
    choose_export,
    encode_pixels,
    write_description,
)
from ember_reid.modeling import ReidOutput

METADATA = ExportMetadata(
    fingerprint="0" * 16,
    size=(6, 4),
    interpolation="bilinear",
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
    flip=False,
    embedding_dim=3,
)
SHIFT, SCALE = torch.full((3, 1, 1), 127.5), torch.full((3, 1, 1), 1 / 63.75)


class Corner(torch.nn.Module):
    """The embedding is the normalized upper left pixel."""

    def forward(self, images):
        return ReidOutput(embedding=images[:, :, 0, 0])


def test_pixels_are_encoded_as_each_program_does():
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    assert encode_pixels(images, "uint8") is images
    assert encode_pixels(images, "unit").flatten().tolist() == pytest.approx([0, 0.2, 1])
    # (0 - 0.485) / 0.229, (0.2 - 0.456) / 0.224, (1 - 0.406) / 0.225
    expected = [-2.117904, -1.142857, 2.64]
    assert encode_pixels(images, "imagenet").flatten().tolist() == pytest.approx(expected)


@pytest.mark.parametrize("pixels", PIXELS)
def test_the_network_receives_the_same_values_however_pixels_are_encoded(pixels):
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16)
    shift, scale = adapt_normalization(SHIFT, SCALE, pixels)
    received = (encode_pixels(images, pixels).float() - shift) * scale
    assert torch.allclose(received, (images.float() - SHIFT) * SCALE, atol=1e-5)


@pytest.mark.parametrize("pixels", PIXELS)
def test_an_exported_file_is_opened_with_the_encoding_in_its_metadata(pixels, tmp_path):
    metadata = replace(METADATA, pixels=pixels, input=INPUTS[pixels])
    network = DeployedNetwork(Corner(), *adapt_normalization(SHIFT, SCALE, pixels))
    write_network(network, metadata, tmp_path / "x.ts", format="torchscript")
    embedder = open_exported(tmp_path / "x.ts", device=torch.device("cpu"), trust=True)
    assert parse_metadata(embedder.metadata.to_json()).pixels == pixels
    images = torch.zeros(1, 3, 6, 4, dtype=torch.uint8)
    images[0, :, 0, 0] = torch.tensor([255, 127, 0])
    # ((255, 127, 0) - 127.5) / 63.75 = (2, -0.00784, -2), of length 2.828
    expected = torch.tensor([[0.707104, -0.002773, -0.707104]])
    assert torch.allclose(embedder.embed_batch(images), expected, atol=1e-5)


def test_targets_choose_format_suffix_and_input():
    assert choose_export(None, None) == Export("onnx", ".onnx", "uint8")
    assert choose_export(None, "boxmot") == Export("onnx", ".onnx", "imagenet", "boxmot")
    assert choose_export("torchscript", "boxmot").suffix == ".torchscript"
    assert choose_export(None, "ultralytics").pixels == "unit"
    assert choose_export(None, "coreml").pixels == "unit"
    for name, target in TARGETS.items():
        assert set(target.formats) <= set(FORMATS), name


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("tflite", None), "the export target is 'tflite', it must be one of onnx, torchscript"),
        ((None, "sort"), "--for is 'sort', it must be one of boxmot, ultralytics, deepsort"),
        (("coreml", "ultralytics"), "--for ultralytics takes onnx, not --to coreml"),
    ],
)
def test_unknown_targets_name_the_known_ones(words, message):
    with pytest.raises(ValueError, match=message):
        choose_export(*words)


def test_boxmot_finds_the_size_next_to_the_file(tmp_path):
    file, folder = tmp_path / "x.onnx", tmp_path / "x_openvino_model"
    folder.mkdir()
    described = [write_description(path, "boxmot", METADATA) for path in (file, folder)]
    assert described == [tmp_path / "x.onnx.metadata.json", folder / "manifest.json"]
    for path in described:
        content = json.loads(path.read_text())
        assert content["model_kwargs"] == {"img_size": [6, 4]}
        assert content["preprocess"] == "resize"
    assert write_description(file, "ultralytics", METADATA) is None
    assert write_description(file, "", METADATA) is None
