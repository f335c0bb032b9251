"""Fusing batch norms into convolutions does not change the outputs of teachers."""

import pytest
import torch
from ember_reid.engine.distill.teachers.teacher import Teacher
from ember_reid.engine.fuse_conv_bn import fuse_conv_bn
from ember_reid.modeling.backbones import BackboneOptions, create_backbone
from ember_reid.modeling.model import GlobalHead, HeadOptions, ReidModel
from torch import nn


def randomize_norms(model: nn.Module) -> nn.Module:
    """Running statistics and weights that differ from 0 and 1, as after a training."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                tensor.data.uniform_(0.5, 1.5, generator=generator)
    return model.eval()


def test_one_norm_by_hand():
    conv, norm = nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1, eps=1.0)
    for tensor, value in zip(
        (conv.weight, norm.running_mean, norm.running_var, norm.weight, norm.bias),
        (2, 1, 3, 4, 5),
        strict=True,
    ):
        tensor.data.fill_(value)
    model = nn.Sequential(conv, norm).eval()
    assert fuse_conv_bn(model) == 1
    # (2 x - 1) / sqrt(3 + 1) * 4 + 5 = 4 x + 3
    assert (model[0].weight.item(), model[0].bias.item()) == pytest.approx((4, 3))
    assert isinstance(model[1], nn.Identity)


@pytest.mark.parametrize(
    ("name", "norms", "fused"),
    [
        ("resnet18", 20, 20),
        # Six blocks of stages 1 to 3 normalize half of their channels.
        ("resnet18_ibn_a", 20, 14),
        ("mobilenet_v2", 52, 52),
    ],
)
def test_outputs_are_equal_up_to_rounding(name, norms, fused):
    options = BackboneOptions(width=0.125) if name.startswith("resnet") else BackboneOptions()
    backbone = randomize_norms(create_backbone(name, options)).double()
    images = torch.randn(2, 3, 32, 16, dtype=torch.double)
    before = backbone(images)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in backbone.modules()) == norms
    assert fuse_conv_bn(backbone) == fused
    for one, two in zip(before, backbone(images), strict=True):
        torch.testing.assert_close(one, two)


class Shared(nn.Module):
    """A convolution whose output is also used without the norm."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        x = self.conv(x)
        return self.norm(x) + x


class Untraceable(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.norm(self.conv(x)) if x.sum() > 0 else x


@pytest.mark.parametrize("create", [Shared, Untraceable])
def test_networks_that_cannot_be_fused_are_unchanged(create):
    model = create().eval()
    assert fuse_conv_bn(model) == 0
    assert isinstance(model.norm, nn.BatchNorm2d)


@pytest.mark.parametrize(("statistics", "left"), [("running", 0), ("batch", 20)])
def test_a_fused_teacher_has_the_outputs_of_its_model(statistics, left):
    model = ReidModel(
        randomize_norms(create_backbone("resnet18", BackboneOptions(width=0.125))),
        GlobalHead(64, 5, HeadOptions()),
    )
    plain = Teacher(model, keep_maps=True)
    images = torch.randn(2, 3, 32, 16)
    expected = plain(images)
    teacher = Teacher(model, statistics=statistics, fuse=True, keep_maps=True)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in teacher.model.backbone.modules()) == left
    assert sum(isinstance(m, nn.BatchNorm2d) for m in model.backbone.modules()) == 20
    for one, two in zip(plain.margins(), teacher.margins(), strict=True):
        assert torch.equal(one, two)
    if statistics == "running":
        output = teacher(images)
        for one, two in zip(
            (expected.embedding, *expected.maps), (output.embedding, *output.maps), strict=True
        ):
            torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-3 * two.abs().max().item())


def test_weights_kept_in_half_precision_change_no_bit():
    """Autocast converts the weights in each forward pass; converting them once is equivalent."""
    model = ReidModel(
        randomize_norms(create_backbone("resnet18_ibn_a", BackboneOptions(width=0.125))),
        GlobalHead(64, 5, HeadOptions()),
    )
    images = torch.randn(2, 3, 32, 16)
    kept = Teacher(model, fuse=True, amp_dtype=torch.bfloat16)
    assert kept.model.backbone.layer1[0].conv2.weight.dtype == torch.bfloat16
    assert kept.model.backbone.layer1[0].bn1.BN.weight.dtype == torch.float32
    assert model.backbone.layer1[0].conv2.weight.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output, expected = kept(images), Teacher(model, fuse=True)(images)
    assert torch.equal(output.embedding, expected.embedding)
    assert torch.equal(output.logits[0], expected.logits[0])
