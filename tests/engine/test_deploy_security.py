"""Files that would execute code when loaded, and files with a misleading name."""

import io
import json
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from ember_reid.engine import load_model
from ember_reid.engine.deploy.detect import detect_format
from ember_reid.engine.deploy.metadata import ExportMetadata, parse_metadata
from ember_reid.engine.deploy.network import check_finite
from ember_reid.engine.deploy.runtimes import open_exported
from ember_reid.modeling.weight_files import read_checkpoint
from ember_reid.tools.extract.command import main as extract
from ember_reid.tools.search.command import main as search
from safetensors.torch import save_file
from torch import Tensor, nn

CPU = torch.device("cpu")
METADATA = ExportMetadata(
    fingerprint="0" * 16,
    size=(64, 32),
    interpolation="bilinear",
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    flip=False,
    embedding_dim=3,
)


class Payload:
    """Unpickling it creates a folder, which stands for any command."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


class UnitVector(nn.Module):
    """uint8 [B, 3, H, W] -> [B, 3], the same unit vector for each image."""

    def forward(self, images: Tensor) -> Tensor:
        return (images.float().mean(dim=(2, 3)) * 0 + 1) / 3**0.5


def write_attacking_program(path: Path, marker: Path) -> Path:
    """An exported program with a pickle in place of its sample inputs."""
    program = torch.export.export(UnitVector(), (torch.zeros(2, 3, 4, 4, dtype=torch.uint8),))
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={"ember-reid": METADATA.to_json()})
    inputs = io.BytesIO()
    torch.save(Payload(marker), inputs)
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            is_input = name.endswith("sample_inputs/model.pt")
            target.writestr(name, inputs.getvalue() if is_input else source.read(name))
    return path


def write_attacking_torchscript(path: Path, marker: Path) -> Path:
    """A TorchScript module that writes a file when it is run."""
    lines = (
        "def forward(self, images: Tensor) -> Tensor:",
        f"    torch.save(images, {str(marker)!r})",
        "    return torch.ones([images.size(0), 3]) / 3**0.5",
    )
    # A class of its own: methods cannot be defined twice on one scripted class.
    module = torch.jit.script(type("Program", (nn.Module,), {})())
    module.define("\n".join(lines) + "\n")
    torch.jit.save(module, str(path), _extra_files={"ember-reid": METADATA.to_json()})
    return path


ATTACKS = {
    "exported-program": write_attacking_program,
    "torchscript": write_attacking_torchscript,
}


@pytest.fixture(params=sorted(ATTACKS))
def attack(request, tmp_path):
    """(format, file, what the attack creates); the name of the file says checkpoint."""
    marker = tmp_path / "executed"
    return request.param, ATTACKS[request.param](tmp_path / "best.pt", marker), marker


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image.ppm"
    path.write_bytes(b"P6 1 1 255\n" + bytes(3))
    return path


def test_programs_are_refused_unless_they_are_trusted(attack, image):
    kind, path, marker = attack
    assert detect_format(path) == kind
    with pytest.raises(ValueError) as error:
        load_model(path, device="cpu")
    assert str(error.value) == (
        f"{path} is a program ({kind}), and loading it would execute its code: if you trust its "
        "source, use --trust (Python: trust=True); ONNX files and checkpoints need no trust"
    )
    with pytest.raises(ValueError, match="is a program"):
        open_exported(path, device=CPU)
    assert not marker.exists()
    # The attack is real: with trust, it is executed.
    try:
        load_model(path, device="cpu", trust=True).embed([image])
    except ValueError:
        pass
    assert marker.exists()


def test_extract_and_search_refuse_programs(attack, image, tmp_path, capsys):
    kind, path, marker = attack
    out = tmp_path / "features.npz"
    assert extract(["TEST.WEIGHT", str(path), str(image), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert f"is a program ({kind})" in error and "--trust" in error and error.count("\n") == 1
    empty = np.array([], dtype="<U1")
    np.savez(
        out,
        embeddings=np.ones((1, 3), np.float32) / np.float32(3**0.5),
        **dict.fromkeys(("paths", "pids", "camids"), np.array(["a"])),
        **dict.fromkeys(("broken", "reasons"), empty),
        card=METADATA.to_json(),
        weights=str(path),
        config="",
        plan="",
    )
    words = [str(out), str(image), "--out", str(tmp_path / "found")]
    assert search([*words, "--trust"]) == 2
    error = capsys.readouterr().err
    assert f"names the program {path}" in error and "--weights" in error and error.count("\n") == 1
    assert search([*words, "--weights", str(path)]) == 2
    assert f"is a program ({kind})" in capsys.readouterr().err
    assert not marker.exists()


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.onnx", "weights.pt"])
def test_pickles_are_refused_under_every_name(tmp_path, name):
    path, marker = tmp_path / name, tmp_path / "executed"
    path.write_bytes(pickle.dumps(Payload(marker)))
    assert detect_format(path) == "checkpoint"
    with pytest.raises(ValueError, match="would execute code"):
        load_model(path, device="cpu")
    torch.save(Payload(marker), path)
    with pytest.raises(ValueError, match="would execute code"):
        load_model(path, device="cpu")
    assert not marker.exists()


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt", "weights.onnx"])
def test_safetensors_are_read_under_every_name(tmp_path, name):
    tensors = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.tensor([1], dtype=torch.int64)}
    path = tmp_path / name
    save_file(tensors, path)
    assert detect_format(path) == "checkpoint"
    found = read_checkpoint(path)
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[key], value) for key, value in tensors.items())


def test_damaged_safetensors_are_named(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(4)}, path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="is a damaged safetensors file"):
        read_checkpoint(path)


def varint_field(number: int, value: int) -> bytes:
    return bytes([number << 3, value])


def bytes_field(number: int, value: bytes) -> bytes:
    return bytes([number << 3 | 2, len(value)]) + value


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (varint_field(1, 8) + bytes_field(2, b"torch") + bytes_field(7, b"graph"), "onnx"),
        # No graph.
        (varint_field(1, 8) + bytes_field(2, b"torch"), "checkpoint"),
        # Incomplete.
        (varint_field(1, 8) + bytes_field(7, b"graph")[:-1], "checkpoint"),
        # A length without end.
        (varint_field(1, 8) + bytes([7 << 3 | 2]) + b"\xff" * 12, "checkpoint"),
        (b"", "checkpoint"),
        (b"PK\x03\x04 not an archive", "checkpoint"),
    ],
)
def test_content_decides_what_onnx_is(tmp_path, content, expected):
    path = tmp_path / "model.bin"
    path.write_bytes(content)
    assert detect_format(path) == expected


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"x/code/a.py": b"?"}, "is not a TorchScript file"),
        ({"x/archive_format": b"pt2"}, "is not an exported program that torch can load"),
        ({"archive_format": b"?", "byteorder": b"?"}, "is not an exported program that torch"),
    ],
)
def test_archives_that_only_look_like_programs_are_one_line(tmp_path, members, message):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(ValueError, match=message) as error:
        load_model(path, trust=True, device="cpu")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": [64]}, "has size (64,), it must be two whole numbers in 1..4096"),
        ({"size": [1 << 40, 1]}, "it must be two whole numbers in 1..4096"),
        ({"size": ["64", "32"]}, "it must be two whole numbers in 1..4096"),
        ({"interpolation": ["bilinear"]}, "interpolation ('bilinear',), it must be one of bilin"),
        ({"std": [1, 0, 1]}, "it must be three numbers above 0"),
        ({"mean": [float("nan")] * 3}, "has mean (nan, nan, nan), it must be three numbers"),
        ({"flip": 1}, "has flip 1, it must be true or false"),
        ({"embedding_dim": -1}, "it must be a whole number in 1..100000"),
        ({"precision": {}}, "it must be one of float32, half, int8"),
        ({"threshold": float("inf")}, "has threshold inf, it must be null or a number in 0..2"),
        ({"fingerprint": None}, "has fingerprint None, it must be a text"),
    ],
)
def test_invalid_metadata_is_named(changes, message):
    with pytest.raises(ValueError) as error:
        parse_metadata(json.dumps(METADATA.to_dict() | changes))
    assert message in str(error.value)


@pytest.mark.parametrize("text", ["", "[1]", "{}", "[" * 100_000, "x" * 200_000])
def test_texts_that_are_not_metadata_are_refused(text):
    with pytest.raises(ValueError, match="not the metadata of an exported network"):
        parse_metadata(text)


def test_nan_weights_are_refused_and_unused_ones_are_not():
    weights = {"a.weight": torch.ones(2), "b.weight": torch.ones(3)}
    check_finite(weights | {"classifier.weight": torch.tensor([torch.nan])}, "best.pt")
    damaged = weights | {"b.weight": torch.tensor([1.0, torch.inf, 0.0])}
    with pytest.raises(ValueError, match=r"^best.pt has NaN .* in 1 of its 2 .* \(first: b.weight"):
        check_finite(damaged, "best.pt")


def test_a_checkpoint_with_nan_weights_embeds_nothing(tiny_run, image, tmp_path, capsys):
    content = torch.load(tiny_run / "checkpoints" / "best.pt", weights_only=True)
    name = next(name for name in content["model"] if name.startswith("backbone"))
    content["model"][name].fill_(torch.nan)
    # As in checkpoints of earlier versions; otherwise the checksum would be what is wrong.
    del content["checksums"]
    path, out = tmp_path / "nan.pt", tmp_path / "features.npz"
    torch.save(content, path)
    assert extract(["TEST.WEIGHT", str(path), str(image), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert f"{path} has NaN or infinite values in 1 of its" in error and error.count("\n") == 1
    assert not out.exists()
