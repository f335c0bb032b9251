"""Backbones `timm:<name>`: with a stand-in of the package, and with timm itself."""

import sys
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tests.modeling.models import build

SIZE = {"INPUT__SIZE_TRAIN": "(64, 32)", "INPUT__SIZE_TEST": "(64, 32)"}


class Patches(nn.Module):
    """A convolution with stride 16; its answer in one of the shapes that timm's networks have."""

    num_features = 6

    def __init__(self, layout, image_size=None):
        super().__init__()
        self.layout, self.image_size = layout, image_size
        self.num_prefix_tokens = 2 if layout == "tokens" else 0
        self.conv = nn.Conv2d(3, 6, 16, stride=16)
        self.prefix = nn.Parameter(torch.full((1, 2, 6), 100.0))

    def forward(self, images):
        if self.image_size and tuple(images.shape[2:]) != self.image_size:
            raise AssertionError("wrong size")
        maps = self.conv(images)
        if self.layout == "first":
            return maps
        if self.layout == "last":
            return maps.permute(0, 2, 3, 1)
        return torch.cat(
            [self.prefix.expand(len(images), -1, -1), maps.flatten(2).transpose(1, 2)], dim=1
        )


def create_model(
    name, *, pretrained, num_classes, global_pool, img_size=None, pretrained_cfg_overlay=None
):
    assert (num_classes, global_pool) == (0, "")
    if name == "convnet" and img_size is not None:
        raise TypeError("unexpected keyword argument 'img_size'")
    if pretrained and not pretrained_cfg_overlay:
        raise RuntimeError("cannot reach the hub\nand a long story")
    network = Patches({"convnet": "first", "swin": "last", "vit": "tokens"}[name], img_size)
    if pretrained:
        network.load_state_dict(torch.load(pretrained_cfg_overlay["file"], weights_only=True))
    return network


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    known = ("convnet", "swin", "vit")
    module = SimpleNamespace(
        create_model=create_model,
        is_model=lambda name: name in known,
        list_models=lambda pattern: [name for name in known if pattern.strip("*") in name],
    )
    monkeypatch.setitem(sys.modules, "timm", module)


@pytest.mark.parametrize("name", ["convnet", "swin", "vit"])
def test_maps_are_channels_first_and_without_prefix_tokens(name):
    model = build(f"timm:{name}", **SIZE)
    images = torch.rand(2, 3, 64, 32)
    expected = model.backbone.network.conv(images)
    (maps,) = model.backbone(images)
    assert maps.shape == (2, 6, 4, 2) and model.backbone.channels == (6,)
    torch.testing.assert_close(maps, expected)
    model(images[:, None].expand(2, 3, 3, 64, 32)).logits[0].sum().backward()
    assert model.backbone.network.conv.weight.grad.abs().sum() > 0


def test_a_local_file_starts_the_network(tmp_path):
    other = Patches("first")
    torch.save(other.state_dict(), tmp_path / "weights.pth")
    model = build("timm:convnet", MODEL__BACKBONE__WEIGHTS=tmp_path / "weights.pth", **SIZE)
    assert torch.equal(model.backbone.network.conv.weight, other.conv.weight)


@pytest.mark.parametrize(
    "name, more, message",
    [
        ("conv", {}, "timm has no model 'conv'; similar names: convnet"),
        ("vgg", {}, "timm has no model 'vgg'; similar names: none"),
        (
            "vit",
            {"INPUT__SIZE_TEST": "(96, 32)"},
            r"which supports one image size, but INPUT.SIZE_TRAIN is \(64, 32\)",
        ),
        ("vit", {"MODEL__BACKBONE__LAST_STRIDE": 1}, "timm:vit has no such setting"),
        ("vit", {"MODEL__HEAD__NAME": "mgn"}, "needs a ResNet with bottlenecks"),
        (
            "vit",
            {"MODEL__BACKBONE__WEIGHTS": "imagenet"},
            "weights imagenet of timm:vit .cannot reach the hub.; set",
        ),
        (
            "vit",
            {"INPUT__SIZE_TRAIN": "(8, 8)", "INPUT__SIZE_TEST": "(8, 8)"},
            "timm:vit does not support 8 x 8 images",
        ),
    ],
)
def test_mistakes_are_named(name, more, message):
    with pytest.raises(ValueError, match=message):
        build(f"timm:{name}", **{**SIZE, **more})


def test_a_missing_file_and_a_missing_package_are_named(monkeypatch):
    with pytest.raises(FileNotFoundError, match="which is not a file"):
        build("timm:vit", MODEL__BACKBONE__WEIGHTS="nowhere.pth", **SIZE)
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match="need the package timm: pip install"):
        build("timm:vit", **SIZE)


if find_spec("timm"):

    @pytest.mark.parametrize(
        "name, shape",
        [
            ("vit_tiny_patch16_224", (4, 2)),
            ("convnext_atto", (2, 1)),
            ("swin_tiny_patch4_window7_224", (2, 1)),
        ],
    )
    def test_the_package_itself(name, shape, monkeypatch):
        monkeypatch.delitem(sys.modules, "timm")
        model = build(f"timm:{name}", **SIZE)
        output = model(torch.randn(2, 3, 64, 32))
        (output.embedding.sum() + output.logits[0].square().sum()).backward()
        assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
        assert model.backbone(torch.randn(1, 3, 64, 32))[0].shape[2:] == shape
