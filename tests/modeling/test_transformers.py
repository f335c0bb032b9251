"""Heads, side information, jigsaw patches and training options of transformers, at small sizes."""

import logging

import pytest
import torch
from ember_reid.data.batch import Batch
from ember_reid.data.records import Record, Splits
from ember_reid.data.side_information import check_cameras
from ember_reid.engine.losses.criterion import mean_over
from ember_reid.modeling.jpm import shuffle_patches
from ember_reid.modeling.model import side_inputs
from torch import nn

from tests.helpers.models import build

VIT = "timm:vit_tiny_patch16_224"
TINY = {
    "INPUT__SIZE_TRAIN": "(64, 32)",
    "INPUT__SIZE_TEST": "(64, 32)",
    "MODEL__BACKBONE__ARGS": "{depth: 2, embed_dim: 12, num_heads: 2}",
}
CNN = {**TINY, "MODEL__BACKBONE__ARGS": ""}


def test_a_head_uses_the_class_token_the_patches_or_both():
    images = torch.rand(2, 3, 64, 32)
    outputs = {}
    for tokens in ("auto", "class", "patches", "class+patches"):
        torch.manual_seed(0)
        model = build(VIT, MODEL__HEAD__TOKENS=tokens, TEST__NECK_FEAT="before", **TINY).eval()
        outputs[tokens] = model(images).embedding
        tokens_out = model.backbone.network(images)
    torch.testing.assert_close(outputs["class"], tokens_out[:, 0])
    torch.testing.assert_close(outputs["patches"], tokens_out[:, 1:].mean(dim=1))
    both = torch.cat([outputs["class"], outputs["patches"]], dim=1)
    assert torch.equal(outputs["class+patches"], both)
    assert torch.equal(outputs["auto"], outputs["class"])


def test_gem_pools_the_patches_next_to_the_class_token():
    model = build(VIT, MODEL__HEAD__TOKENS="class+patches", MODEL__POOL__NAME="gem", **TINY)
    patches, class_token = model.backbone(torch.rand(2, 3, 64, 32))
    expected = patches.clamp(min=1e-6).pow(3).mean(dim=(2, 3)).pow(1 / 3)
    pooled = model.head._pool((patches, class_token))
    torch.testing.assert_close(pooled[:, 12:], expected)
    assert model.head.neck.num_features == 24


def test_networks_without_class_token_use_the_patches(caplog):
    with caplog.at_level(logging.INFO, "ember"):
        model = build(
            "timm:convnext_atto",
            MODEL__HEAD__TOKENS="class",
            MODEL__BACKBONE__LAST_STRIDE=2,
            **CNN,
        )
    assert model.backbone.tokens == "patches"
    assert caplog.messages == [
        "timm:convnext_atto has no class token: MODEL.HEAD.TOKENS is now patches"
    ]


def test_overlapping_patches_have_resampled_positions():
    model = build(VIT, MODEL__BACKBONE__PATCH_STRIDE=12, **TINY)
    assert model.backbone.network.pos_embed.shape == (1, 1 + 5 * 2, 12)
    assert model.backbone(torch.rand(1, 3, 64, 32))[0].shape == (1, 12, 5, 2)


def test_patches_are_rotated_and_interleaved():
    patches = torch.arange(8.0).reshape(1, 8, 1)
    mixed = shuffle_patches(patches, shift=3, groups=2).flatten().tolist()
    # Rotated by 2: 2 3 4 5 | 6 7 0 1.
    assert mixed == [2, 6, 3, 7, 4, 0, 5, 1]
    odd = shuffle_patches(patches[:, :5], shift=1, groups=2).flatten().tolist()
    # The last but one is repeated: 0 1 2 | 3 4 3.
    assert odd == [0, 3, 1, 4, 2, 3]
    with pytest.raises(ValueError, match="GROUPS is 4, which does not divide 5 patches"):
        shuffle_patches(patches[:, :5], shift=1, groups=4)


def test_jpm_has_a_global_and_four_local_features():
    model = build(VIT, MODEL__HEAD__NAME="jpm", TEST__NECK_FEAT="before", **TINY)
    output = model(torch.rand(2, 3, 64, 32))
    assert output.embedding.shape == (2, 5 * 12)
    assert len(output.logits) == len(output.features) == 5
    torch.testing.assert_close(output.embedding[:, 12:24], output.features[1] / 4)
    (sum(logits.square().sum() for logits in output.logits)).backward()
    unused = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert unused == []


def test_the_global_feature_has_half_of_the_weight():
    values = tuple(torch.tensor(float(v)) for v in (10, 1, 2, 3, 6))
    assert mean_over(values, lambda v: v, global_weight=0.5) == 0.5 * 10 + 0.5 * 3
    assert mean_over(values, lambda v: v) == 22 / 5


def test_each_camera_adds_its_vector_to_all_tokens():
    model = build(VIT, MODEL__SIE__CAMERAS=3, MODEL__SIE__WEIGHT=2.0, **TINY).eval()
    images = torch.rand(1, 3, 64, 32).expand(3, -1, -1, -1)
    side = model.backbone.side.embedding
    tokens = model.backbone.embed(images, torch.tensor([0, 1, 2]))
    torch.testing.assert_close(tokens[1] - tokens[0], (2 * (side[1] - side[0])).expand(9, -1))
    mean = model.backbone.embed(images)
    torch.testing.assert_close(mean[0], tokens.mean(dim=0))
    embeddings = model(images, torch.tensor([0, 1, 2])).embedding
    assert not torch.allclose(embeddings[0], embeddings[1])
    clips = model(images[None, :2], torch.tensor([2])).embedding
    torch.testing.assert_close(clips, embeddings[2:])


def test_only_models_with_side_information_receive_cameras():
    images, camids = torch.zeros(2, 3, 64, 32), torch.tensor([1, 0])
    batch = Batch(images, pids=camids * 0, camids=camids, indices=camids * 0)
    assert side_inputs(build(VIT, **TINY), batch) == ()
    assert side_inputs(nn.Identity(), batch) == ()
    (passed,) = side_inputs(build(VIT, MODEL__SIE__CAMERAS=2, **TINY), batch)
    assert torch.equal(passed, camids)


@pytest.mark.parametrize(
    "camids, message",
    [
        ((0, 1, 4), "CAMERAS is 3, but x has images of camera 5; set it to the number of"),
        ((2, 2), "the training images of x have no camera labels, or a single camera; set it"),
    ],
)
def test_cameras_are_checked_before_training(camids, message):
    records = tuple(Record((), 0, camid) for camid in camids)
    splits = Splits(train=records, query=(), gallery=(), name="x")
    check_cameras([splits], 0)
    with pytest.raises(ValueError, match=message):
        check_cameras([splits], 3)


@pytest.mark.parametrize("name", [VIT, "timm:convnext_atto"])
def test_gradient_checkpointing_changes_no_gradient(name):
    size = TINY if name == VIT else CNN
    gradients = []
    for enabled in (False, True):
        torch.manual_seed(0)
        model = build(name, MODEL__BACKBONE__GRAD_CHECKPOINT=enabled, **size)
        assert model.backbone.network.training
        model(torch.ones(2, 3, 64, 32)).logits[0].square().sum().backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second)
    if name == VIT:
        assert model.backbone.network.grad_checkpointing
        assert not model.eval().backbone.network.grad_checkpointing


def test_drop_path_grows_with_depth_and_patches_can_be_frozen(caplog):
    model = build(
        VIT, MODEL__BACKBONE__DROP_PATH=0.2, MODEL__BACKBONE__FREEZE_PATCH_EMBED=True, **TINY
    )
    assert isinstance(model.backbone.network.blocks[0].drop_path1, nn.Identity)
    assert model.backbone.network.blocks[1].drop_path1.drop_prob == pytest.approx(0.2)
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {
        "backbone.network.patch_embed.proj.weight",
        "backbone.network.patch_embed.proj.bias",
        "head.neck.bias",
    }
    with caplog.at_level(logging.INFO, "ember"):
        build("resnet18", MODEL__BACKBONE__DROP_PATH=0.2, MODEL__BACKBONE__PATCH_STRIDE=12)
    assert caplog.messages == [
        "a ResNet-18 has no MODEL.BACKBONE setting PATCH_STRIDE 12 (now 0), DROP_PATH 0.2 (now 0.0)"
    ]


@pytest.mark.parametrize(
    "name, more, message",
    [
        (VIT, {"INPUT__SIZE_TRAIN": "(60, 32)"}, r"60 x 32 is not divisible by the patches of "),
        (VIT, {"MODEL__BACKBONE__ARGS": "{colour: 1}"}, r"ARGS {'colour': 1} do not fit vit_tiny"),
        (VIT, {"MODEL__HEAD__NAME": "jpm", "MODEL__JPM__PARTS": 9}, "an image has 8 patches"),
        (
            "resnet18",
            {"MODEL__HEAD__NAME": "jpm", **CNN},
            "needs a vision transformer with a class",
        ),
        ("resnet18", {"MODEL__SIE__CAMERAS": 6, **CNN}, "resnet18 has none: set MODEL.SIE.CAMERAS"),
        ("timm:convnext_atto", {"MODEL__SIE__CAMERAS": 6, **CNN}, "convnext_atto is none: set"),
        ("resnet18", {"MODEL__BACKBONE__GRAD_CHECKPOINT": True, **CNN}, "not for resnet18; set it"),
        (
            "timm:selecsls42",
            {"MODEL__BACKBONE__GRAD_CHECKPOINT": True, **CNN},
            "timm has no gradient checkpointing for timm:selecsls42; set",
        ),
    ],
)
def test_errors_name_what_was_found_and_what_to_do(name, more, message):
    with pytest.raises(ValueError, match=message) as caught:
        build(name, **{**TINY, **more})
    assert "\n" not in str(caught.value)
