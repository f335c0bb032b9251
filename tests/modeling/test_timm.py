"""Backbones timm:<name>, with timm itself and small networks."""

import logging
import sys

import pytest
import timm
import torch
from ember_reid.modeling.backbones import BackboneOptions
from ember_reid.modeling.backbones.timm import TimmBackbone, create_timm_network

from tests.helpers.models import build

SIZE = {"INPUT__SIZE_TRAIN": "(64, 32)", "INPUT__SIZE_TEST": "(64, 32)"}
VIT, SWIN, CONVNEXT = "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "convnext_atto"


@pytest.mark.parametrize("name, shape", [(VIT, (4, 2)), (CONVNEXT, (2, 1)), (SWIN, (2, 1))])
def test_every_parameter_is_trained(name, shape):
    model = build(f"timm:{name}", **SIZE)
    output = model(torch.randn(2, 3, 64, 32))
    (output.embedding.sum() + output.logits[0].square().sum()).backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    maps = model.backbone(torch.randn(1, 3, 64, 32))[0]
    assert maps.shape == (1, model.backbone.channels[0], *shape)


def test_patch_tokens_become_a_map_and_the_class_token_another_one():
    model = build(f"timm:{VIT}", **SIZE).eval()
    images = torch.rand(1, 3, 64, 32)
    with torch.inference_mode():
        tokens = model.backbone.network(images)
        maps, class_token = model.backbone(images)
    assert torch.equal(class_token.flatten(1), tokens[:, 0])
    assert tokens.shape == (1, 1 + 8, 192)
    for row in range(4):
        for column in range(2):
            assert torch.equal(maps[0, :, row, column], tokens[0, 1 + 2 * row + column])


def test_settings_that_a_backbone_lacks_are_ignored_with_one_line(caplog):
    with caplog.at_level(logging.INFO, "ember"):
        build(f"timm:{CONVNEXT}", MODEL__BACKBONE__LAST_STRIDE=1, MODEL__BACKBONE__STEM_RELU=False)
    assert caplog.messages == [
        "timm:convnext_atto has no MODEL.BACKBONE setting LAST_STRIDE 1 (now 2), STEM_RELU False "
        "(now True)"
    ]


@pytest.mark.parametrize(
    "name, more, message",
    [
        ("convnext_att", {}, "timm has no model 'convnext_att'; similar names: .*convnext_atto"),
        ("zzz", {}, "timm has no model 'zzz'; similar names: none"),
        (VIT, {"INPUT__SIZE_TEST": "(96, 32)"}, r"supports one image size, but INPUT.SIZE_TRAIN"),
        (
            VIT,
            {"INPUT__SCALES": "(0.5, 1.0)", "INPUT__SCALE_STEPS": "(0.5,)"},
            r"supports one image size, but INPUT.SCALES is \(0.5, 1.0\)",
        ),
        (VIT, {"MODEL__HEAD__NAME": "mgn"}, "needs a ResNet with bottlenecks"),
    ],
)
def test_errors_name_the_cause(name, more, message):
    with pytest.raises(ValueError, match=message):
        build(f"timm:{name}", **{**SIZE, **more})


def test_a_failed_download_is_one_line(monkeypatch):
    create_model = timm.create_model

    def offline(name, *, pretrained, **arguments):
        if pretrained:
            raise RuntimeError("cannot reach the hub\nand a traceback")
        return create_model(name, pretrained=False, **arguments)

    monkeypatch.setattr(timm, "create_model", offline)
    message = r"cannot download weights of timm:convnext_atto \(cannot reach the hub\); set"
    with pytest.raises(ValueError, match=message):
        build(f"timm:{CONVNEXT}", MODEL__BACKBONE__WEIGHTS="imagenet")


def test_a_missing_file_and_a_missing_package_are_named(monkeypatch):
    with pytest.raises(FileNotFoundError, match="which is not a file"):
        build(f"timm:{VIT}", MODEL__BACKBONE__WEIGHTS="nowhere.pth", **SIZE)
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match="need the package timm: pip install"):
        build(f"timm:{VIT}", **SIZE)


def test_maps_of_networks_with_wider_heads_have_channels_first():
    # MobileNetV4 ends in a convolution to 1280 channels; its num_features is 960.
    network = timm.create_model("mobilenetv4_conv_small", num_classes=0, global_pool="")
    backbone = TimmBackbone(network, BackboneOptions(image_size=(64, 32)), "mobilenetv4")
    assert backbone.channels == (1280,) and backbone.layout == "first"


def test_names_of_the_hub_without_a_network_are_one_line(monkeypatch):
    def offline(name, **arguments):
        raise OSError("cannot find the requested files\nin the cache")

    monkeypatch.setattr(timm, "create_model", offline)
    message = r"cannot read hf-hub:a/b from the Hugging Face hub \(cannot find .* files\); without"
    with pytest.raises(ValueError, match=message):
        create_timm_network("hf-hub:a/b", (64, 32), pretrained=False)


def test_strided_convolutions_of_images_are_slices():
    # Such a convolution of torch 2.15 can end the process in its backward pass.
    torch.manual_seed(0)
    expected = timm.create_model("fastvit_t8", num_classes=0, global_pool="").stem[0]
    stem = create_timm_network("fastvit_t8", None, pretrained=False).stem[0]
    stem.load_state_dict(expected.state_dict())
    images = torch.rand(2, 3, 8, 6)
    torch.testing.assert_close(stem(images), expected(images))
    assert stem.conv_scale.conv.stride == (1, 1)
    stem.to(memory_format=torch.channels_last)
    images = torch.rand(16, 3, 64, 32).to(memory_format=torch.channels_last)
    stem(images).square().sum().backward()
    assert stem.conv_scale.conv.weight.grad.isfinite().all()
