"""Pretrained weights in the layouts of other programs: loaded completely, or refused."""

import logging

import pytest
import safetensors.torch
import timm
import torch

from tests.helpers.models import build

VIT = "vit_tiny_patch16_224"
SIZE = {"INPUT__SIZE_TRAIN": "(64, 32)", "INPUT__SIZE_TEST": "(64, 32)"}


def load(tmp_path, content, name=f"timm:{VIT}", **more):
    torch.save(content, tmp_path / "weights.pth")
    more = SIZE | more if name.startswith("timm") else more
    return build(name, MODEL__BACKBONE__WEIGHTS=tmp_path / "weights.pth", **more)


def prefixed(state, prefix):
    return {prefix + name: tensor for name, tensor in state.items()}


@pytest.fixture(scope="module")
def state():
    """A small ViT of timm for 64x32 images, without a classifier."""
    torch.manual_seed(0)
    network = timm.create_model(VIT, num_classes=0, global_pool="", img_size=(64, 32))
    return network.state_dict()


HEAD = {"head.mlp.0.weight": torch.zeros(2, 2), "masked_embed": torch.zeros(1, 2)}
LAYOUTS = {
    "timm": lambda s: s | {"head.weight": torch.zeros(3, 192), "head.bias": torch.zeros(3)},
    "iBOT": lambda s: {"teacher": prefixed(s | HEAD, "module.backbone."), "epoch": 3},
    "PersonViT": lambda s: prefixed(s, "teacher.backbone.") | prefixed(s, "student.backbone."),
    "TransReID": lambda s: prefixed(s, "base.") | {"bottleneck.weight": torch.ones(192)},
    "DataParallel": lambda s: {"state_dict": prefixed(s, "module.base.")},
    "MoCo": lambda s: {"state_dict": prefixed(s, "module.encoder_q.")},
    "MAE": lambda s: {"model": s | {"decoder_embed.weight": torch.zeros(2)}},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_loads_completely(layout, state, tmp_path):
    model = load(tmp_path, LAYOUTS[layout](state))
    own = model.backbone.network.state_dict()
    assert own.keys() == state.keys()
    assert all(torch.equal(own[name], tensor) for name, tensor in state.items())


def test_the_global_branch_of_jpm_is_the_last_block(state, tmp_path):
    branch = {f"b1.0.{k[10:]}": v + 1 for k, v in state.items() if k.startswith("blocks.11.")}
    branch |= {f"b1.1.{k[5:]}": v + 1 for k, v in state.items() if k.startswith("norm.")}
    own = load(tmp_path, prefixed(state, "base.") | branch).backbone.network.state_dict()
    for name, tensor in state.items():
        expected = tensor + 1 if name.startswith(("blocks.11.", "norm.")) else tensor
        assert torch.equal(own[name], expected), name


@pytest.mark.parametrize("prefix", ["module.encoder_q.", "base."])
def test_resnets_of_moco_and_of_the_strong_baseline(prefix, tmp_path):
    state = build("resnet18").backbone.state_dict()
    content = prefixed(state, prefix) | {"module.queue": torch.zeros(3)}
    content["module.encoder_q.fc.0.weight"] = torch.zeros(2)
    if prefix == "base.":
        content = prefixed(state, prefix)
    own = load(tmp_path, content, name="resnet18").backbone.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in state.items())


def test_position_embeddings_are_resampled_and_reported(tmp_path, caplog):
    network = timm.create_model(VIT, num_classes=0, global_pool="")
    with caplog.at_level(logging.INFO, "ember"):
        model = load(tmp_path, network.state_dict())
    expected = timm.layers.resample_abs_pos_embed(
        network.pos_embed, new_size=(4, 2), num_prefix_tokens=1
    )
    assert torch.equal(model.backbone.network.pos_embed, expected)
    assert caplog.messages[-1].endswith("150 tensors fit, 1 resampled (pos_embed)")


def test_our_own_checkpoints_are_pretrained_weights(state, tmp_path):
    content = {"model": prefixed(state, "backbone.network.") | {"head.neck.weight": torch.ones(1)}}
    own = load(tmp_path, content).backbone.network.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize(
    "names, message",
    [
        (["embeddings.cls_token", "encoder.layer.0.attention.query.weight"], "Hugging Face"),
        (["layer1.0.conv1.weight"], "choose the matching MODEL.BACKBONE.NAME"),
    ],
)
def test_safetensors_with_foreign_names_are_refused(names, message, tmp_path):
    path = tmp_path / "weights.pth"
    safetensors.torch.save_file({name: torch.zeros(1) for name in names}, path)
    with pytest.raises(ValueError, match=f"0 tensors fit, .*unexpected.*{message}") as error:
        build(f"timm:{VIT}", MODEL__BACKBONE__WEIGHTS=path, **SIZE)
    assert "\n" not in str(error.value)


def without(state, *names):
    return {k: v for k, v in state.items() if k not in names}


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: {"teacher": {"x": torch.zeros(1)}}, "0 tensors fit, 150 missing .*unexpected"),
        (lambda s: without(s, "norm.weight"), r"149 tensors fit, 1 missing \(norm.weight\)"),
        (lambda s: s | {"base_sie": torch.zeros(1)}, r"1 unexpected \(base_sie\)"),
        (lambda s: s | {"norm.bias": torch.zeros(5)}, r"1 of another shape \(norm.bias\)"),
        (
            lambda s: s | {"norm.bias": torch.zeros(192, dtype=torch.int8)},
            "is quantized: norm.bias has the type torch.int8",
        ),
    ],
)
def test_files_that_do_not_match_completely_are_refused(change, message, state, tmp_path):
    with pytest.raises(ValueError, match=message) as error:
        load(tmp_path, change(state))
    assert "\n" not in str(error.value)


def test_partial_accepts_what_fits_and_warns(state, tmp_path, caplog):
    content = without(state, "norm.weight")
    model = load(tmp_path, content, MODEL__BACKBONE__PARTIAL=True)
    assert torch.equal(model.backbone.network.cls_token, state["cls_token"])
    assert "loaded partially: 149 tensors fit, 1 missing (norm.weight)" in caplog.text
    assert model.missing_weights == ("norm.weight",)
    with pytest.raises(ValueError, match="0 tensors fit"):
        load(tmp_path, {"x": torch.zeros(1)}, MODEL__BACKBONE__PARTIAL=True)
