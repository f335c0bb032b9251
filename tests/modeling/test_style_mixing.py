"""MixStyle layers in backbones."""

import copy

import pytest
import torch
from ember_reid.data.batch import Batch
from ember_reid.modeling.mixstyle import mixing_disabled, set_domains
from ember_reid.modeling.model import side_inputs
from torch import nn

from tests.helpers.models import build, fill

SMALL = {"INPUT__SIZE_TRAIN": "(32, 32)", "INPUT__SIZE_TEST": "(32, 32)"}
MIXED = {**SMALL, "MODEL__MIXSTYLE__STAGES": "(1, 2)", "MODEL__MIXSTYLE__PROB": 1.0}


def record_mixed(model, images, *side):
    """The maps of the model, and whether each layer changed its input."""
    changed = []
    hooks = [
        layer.register_forward_hook(
            lambda _m, inputs, output: changed.append(not torch.equal(inputs[0], output))
        )
        for layer in model.backbone.style_mixing.layers
    ]
    model(images, *side)
    for hook in hooks:
        hook.remove()
    return changed


@pytest.mark.parametrize("name", ["osnet_x0_25", "mobilenet_v2", "timm:convnext_atto"])
def test_styles_are_mixed_in_training_only(name):
    device = "cpu" if name.startswith("timm:") else "meta"
    model = build(name, device=device, **MIXED)
    model = fill(model) if device == "meta" else model
    images = torch.randn(3, 3, 32, 32)
    assert record_mixed(model, images) == [True, True]
    with mixing_disabled(model):
        assert record_mixed(model, images) == [False, False]
    assert record_mixed(copy.deepcopy(model), images) == [True, True]
    assert record_mixed(model.eval(), images) == [False, False]


@pytest.mark.parametrize(
    "name, num_stages",
    [("resnet50_ibn_a", 4), ("osnet_x0_25", 3), ("densenet121", 4), ("resnest50", 4)],
)
def test_stages_of_networks(name, num_stages):
    model = build(name, device="meta", **MIXED)
    assert len(model.backbone.stage_names) == num_stages
    assert model.state_dict().keys() == build(name, device="meta", **SMALL).state_dict().keys()


def test_the_outputs_of_the_chosen_stage_are_mixed():
    torch.manual_seed(0)
    model = build("resnet18", **MIXED | {"MODEL__MIXSTYLE__STAGES": "(2,)"})
    plain = build("resnet18", **SMALL)
    plain.load_state_dict(model.state_dict())
    images = torch.randn(4, 3, 32, 32)
    mixed, maps = model.backbone(images), plain.backbone(images)
    assert [torch.equal(a, b) for a, b in zip(mixed, maps, strict=True)] == [
        *(True, False, False, False)
    ]
    model.load_state_dict(plain.state_dict())
    assert torch.equal(model.eval()(images).embedding, plain.eval()(images).embedding)


def test_cameras_are_inputs_in_training_only():
    images, camids = torch.randn(4, 3, 32, 32), torch.tensor([2, 0, 0, 2])
    batch = Batch(images, torch.zeros(4, dtype=torch.int64), camids, torch.arange(4))
    model = build("resnet18", **MIXED, MODEL__MIXSTYLE__MIX="cameras")
    layer = model.backbone.style_mixing.layers[0]
    assert torch.equal(side_inputs(model, batch)[0], camids)
    assert side_inputs(nn.Identity(), batch) == ()
    model(images, camids)
    assert torch.equal(layer.domains, camids)
    set_domains(model, {0: 1, 1: 0, 2: 5})
    model(images.unflatten(0, (2, 2)), camids[:2])
    # Each camera is that of two frames.
    assert layer.domains.tolist() == [5, 5, 1, 1]
    assert side_inputs(model.eval(), batch) == ()
    assert side_inputs(build("resnet18", **MIXED), batch) == ()


@pytest.mark.parametrize(
    "name, more, message",
    [
        (
            "timm:vit_tiny_patch16_224",
            {},
            "after the stages of a convolutional network, and timm:vit_tiny_patch16_224 has none",
        ),
        ("timm:swin_tiny_patch4_window7_224", {}, "has none: set MODEL.MIXSTYLE.STAGES to"),
        (
            "osnet_x0_25",
            {"MODEL__MIXSTYLE__STAGES": "(2, 4)"},
            r"STAGES is \(2, 4\), but osnet_x0_25 has the stages 1 to 3 here",
        ),
        (
            "resnet50",
            {"MODEL__HEAD__NAME": "mgn", "MODEL__MIXSTYLE__STAGES": "(3,)"},
            "has the stages 1 to 2 here",
        ),
        ("resnet18", {"MODEL__MIXSTYLE__STAGES": "(1, 1)"}, "each at most once"),
    ],
)
def test_errors(name, more, message):
    with pytest.raises(ValueError, match=message):
        build(name, device="meta", **MIXED | more)
