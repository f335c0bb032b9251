"""Low-rank adapters with the package peft, which make test-extras installs."""

import subprocess
import sys

import pytest
import torch

from tests.helpers.models import build

VIT = "timm:vit_tiny_patch16_224"
TINY = {
    "INPUT__SIZE_TRAIN": "(64, 32)",
    "INPUT__SIZE_TEST": "(64, 32)",
    "MODEL__BACKBONE__ARGS": "{depth: 2, embed_dim: 12, num_heads: 2}",
    "MODEL__LORA__RANK": 2,
}


def save_base(path, *, seed=0):
    """A weight file for the backbone, and the model it comes from."""
    torch.manual_seed(seed)
    plain = build(VIT, **TINY | {"MODEL__LORA__RANK": 0})
    torch.save(plain.backbone.network.state_dict(), path)
    return plain


@pytest.mark.parametrize(
    "name, more, message",
    [
        ("resnet18", {"MODEL__BACKBONE__ARGS": ""}, "it has none; set MODEL.LORA.RANK to 0"),
        (VIT, {"MODEL__LORA__TARGETS": "('q',)"}, "linear layers are called fc1, fc2, proj, qkv;"),
        (VIT, {}, "MODEL.LORA adapts pretrained weights, but MODEL.BACKBONE.WEIGHTS is none"),
    ],
)
def test_errors_name_what_was_found(name, more, message, tmp_path):
    plain = save_base(tmp_path / "base.pth") if name == VIT else build("resnet18", device="cpu")
    if name != VIT:
        torch.save(plain.backbone.state_dict(), tmp_path / "base.pth")
    weights = {} if not more else {"MODEL__BACKBONE__WEIGHTS": tmp_path / "base.pth"}
    with pytest.raises(ValueError, match=message):
        build(name, **TINY | more | weights)


@pytest.mark.extras
def test_checkpoints_contain_adapters_and_loading_checks_the_base(tmp_path):
    pytest.importorskip("peft")
    from ember_reid.modeling.lora import merge_adapters

    plain = save_base(tmp_path / "base.pth")
    tuned = {**TINY, "MODEL__BACKBONE__WEIGHTS": tmp_path / "base.pth"}
    model = build(VIT, **tuned).eval()
    images = torch.rand(2, 3, 64, 32)
    torch.testing.assert_close(model.backbone(images)[1], plain.eval().backbone(images)[1])
    state = model.state_dict()
    assert {n.split(".")[0] for n in state} == {"backbone", "head", "base_fingerprint"}
    assert all(".lora_" in n for n in state if n.startswith("backbone."))
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trained == {n for n in state if "lora_" in n} | {
        "head.neck.weight",
        "head.classifier.weight",
    }
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    expected = model(images).embedding
    other = build(VIT, **tuned).eval()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(images).embedding, expected)
    merge_adapters(other)
    assert not any("lora" in n for n, _ in other.named_parameters())
    torch.testing.assert_close(other(images).embedding, expected, rtol=1e-4, atol=1e-5)
    save_base(tmp_path / "other.pth", seed=1)
    wrong = build(VIT, **{**tuned, "MODEL__BACKBONE__WEIGHTS": tmp_path / "other.pth"})
    with pytest.raises(ValueError, match="trained on other weights than those of MODEL.BACKBONE"):
        wrong.load_state_dict(model.state_dict())


@pytest.mark.extras
def test_side_information_is_trained_and_saved(tmp_path):
    pytest.importorskip("peft")
    save_base(tmp_path / "base.pth")
    model = build(
        VIT, **TINY, MODEL__BACKBONE__WEIGHTS=tmp_path / "base.pth", MODEL__SIE__CAMERAS=3
    )
    assert model.backbone.side.embedding.requires_grad
    assert "backbone.side.embedding" in model.state_dict()


def test_adapters_need_all_weights(tmp_path):
    plain = save_base(tmp_path / "base.pth")
    state = plain.backbone.network.state_dict()
    del state["norm.weight"]
    torch.save(state, tmp_path / "partial.pth")
    partial = {"MODEL__BACKBONE__WEIGHTS": tmp_path / "partial.pth"}
    message = r"but .*partial.pth lacks some \(29 tensors fit, 1 missing \(norm.weight\)\); use a"
    with pytest.raises(ValueError, match=message):
        build(VIT, **TINY, **partial, MODEL__BACKBONE__PARTIAL=True)


def test_a_missing_package_is_one_line(tmp_path, monkeypatch):
    save_base(tmp_path / "base.pth")
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ValueError, match=r"MODEL.LORA needs the package peft: python -m pip inst"):
        build(VIT, **TINY, MODEL__BACKBONE__WEIGHTS=tmp_path / "base.pth")


OFFLINE = """
import socket, sys
sys.addaudithook(lambda event, _: event.startswith("socket.") and used.append(event))
used = []
from peft import LoraConfig, inject_adapter_in_model
network = __import__("torch").nn.Sequential(__import__("torch").nn.Linear(2, 2))
inject_adapter_in_model(LoraConfig(target_modules=["0"]), network)
print([event for event in used if event != "socket.gethostname"])
"""


@pytest.mark.extras
def test_adapters_open_no_connection():
    pytest.importorskip("peft")
    result = subprocess.run([sys.executable, "-c", OFFLINE], capture_output=True, text=True)
    assert result.stdout == "[]\n", result.stderr
