"""Whole models of TransReID, TransReID-SSL, PASS, SOLIDER-REID and CLIP-ReID: all is mapped."""

import re
from dataclasses import replace

import pytest
import torch
from ember_reid.modeling.convert import convert_state_dict
from ember_reid.modeling.layouts import convert_pretrained
from ember_reid.modeling.weight_files import match_state_dict

from tests.helpers.models import build
from tests.modeling.test_namings import clip, ics, part_tokens, solider

MORE = {
    "INPUT__SIZE_TRAIN": "(64, 32)",
    "INPUT__SIZE_TEST": "(64, 32)",
    "MODEL__BACKBONE__ARGS": "{depth: 2}",
    "MODEL__SIE__CAMERAS": 3,
}


def to_transreid(state, *, jpm):
    prefix = "backbone.vit." if jpm else "backbone."
    pairs = [
        (rf"^{re.escape(prefix)}side\.embedding$", "base.sie_embed"),
        (rf"^{re.escape(prefix)}network\.", "base."),
        (r"^backbone\.local\.", "b2."),
        (r"^head\.(heads\.0\.)?neck\.", "bottleneck."),
        (r"^head\.(heads\.0\.)?classifier\.", "classifier."),
        (r"^head\.heads\.(\d)\.neck\.", r"bottleneck_\1."),
        (r"^head\.heads\.(\d)\.classifier\.", r"classifier_\1."),
    ]
    renamed = {}
    for name, tensor in state.items():
        for pattern, replacement in pairs:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor[:, None] if name == "base.sie_embed" else tensor
    if jpm:
        # The last block of the base is not used; the branch b1 contains the global one.
        branch = {
            k: v for k, v in renamed.items() if k.startswith(("base.blocks.1.", "base.norm."))
        }
        for name, tensor in branch.items():
            name = name.replace("base.blocks.1.", "b1.0.").replace("base.norm.", "b1.1.")
            renamed[name] = tensor
    return renamed


@pytest.mark.parametrize("head", ["global", "jpm"])
def test_every_tensor_is_mapped(head):
    more = MORE | {"MODEL__HEAD__NAME": head}
    model = build("timm:vit_tiny_patch16_224", device="meta", **more)
    file = to_transreid(model.state_dict(), jpm=head == "jpm")
    converted = convert_state_dict(file)
    assert converted.layout == "transreid"
    assert converted.settings["INPUT.PIXEL_MEAN"] == (0.5, 0.5, 0.5)
    report = match_state_dict(model, converted.tensors)
    assert (report.missing, report.unexpected, report.mismatched) == ((), (), ())


def test_the_branches_of_a_file_win():
    block = "blocks.0.norm1.weight"
    file = {
        "base.patch_embed.proj.weight": torch.zeros(1),
        "base.cls_token": torch.zeros(1),
        f"base.{block}": torch.zeros(1),
        "b1.0.norm1.weight": torch.ones(1),
        "b1.1.weight": torch.ones(1),
        "b2.0.norm1.weight": torch.full((1,), 2.0),
        "base.sie_embed": torch.zeros(3, 1, 4),
    }
    whole = convert_state_dict(file).tensors
    assert whole[f"backbone.vit.network.{block}"] == 1
    assert whole["backbone.local.0.norm1.weight"] == 2
    assert whole["backbone.vit.side.embedding"].shape == (3, 4)
    # As pretrained weights: the cameras are those of another dataset.
    backbone = convert_pretrained(file).tensors
    assert backbone[block] == 1
    assert backbone.keys() == {"patch_embed.proj.weight", "cls_token", block, "norm.weight"}


def below(prefix, rename=dict):
    """A function that renames our names to those of a program, with the backbone in `prefix`."""

    def convert(state):
        inner = {k[len(OWN) :]: v for k, v in state.items() if k.startswith(OWN)}
        others = {k: v for k, v in state.items() if not k.startswith(OWN)}
        return {prefix + name: tensor for name, tensor in rename(inner).items()} | others

    return convert


OWN = "backbone.network."
HEADS = (
    (r"^head\.(heads\.0\.)?neck\.", "bottleneck."),
    (r"^head\.(heads\.0\.)?classifier\.", "classifier."),
    (r"^head\.heads\.1\.neck\.", "bottleneck_proj."),
    (r"^head\.heads\.1\.classifier\.", "classifier_proj."),
    (r"^head\.necks\.0\.", "bottleneck."),
    (r"^head\.necks\.(\d)\.", r"bottleneck_\1."),
    (r"^head\.reduction\.0\.", "fcneck."),
    (r"^backbone\.side\.embedding$", "cv_embed"),
)


def rename_heads(state):
    renamed = {}
    for name, tensor in state.items():
        for pattern, replacement in HEADS:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    return renamed


def to_clip_reid(state):
    """The projection is a parameter [C, D] of the image encoder; the text encoder is saved too."""
    file = rename_heads(below("image_encoder.", clip)(state))
    file["image_encoder.proj"] = file.pop("head.heads.1.reduction.0.weight").T
    text = {"text_encoder.positional_embedding": torch.zeros(2), "prompt_learner.cls_ctx": None}
    return file | {name: torch.zeros(2) for name in text}


# (layout, backbone, settings, our names -> theirs)
SMALL = {"INPUT__SIZE_TRAIN": "(64, 32)", "INPUT__SIZE_TEST": "(64, 32)"}
CLIP = {
    "MODEL__HEAD__NAME": "clip",
    "MODEL__HEAD__EMBEDDING_DIM": 6,
    "MODEL__BACKBONE__ARGS": "{depth: 1, embed_dim: 12, num_heads: 2}",
    "MODEL__SIE__CAMERAS": 3,
    "MODEL__SIE__TOKENS": "class",
}
WHOLE = [
    ("solider", "solider_swin_tiny", {}, below("base.", solider)),
    ("pass", "vit_small_pass", {"MODEL__HEAD__NAME": "pass"}, below("base.", part_tokens)),
    (
        "transreid",
        "vit_small_ics",
        {"MODEL__HEAD__EMBEDDING_DIM": 16},
        below("base.", ics),
    ),
    ("clip-reid", "timm:vit_base_patch16_clip_quickgelu_224", CLIP, to_clip_reid),
]


@pytest.mark.parametrize("layout, name, more, rename", WHOLE, ids=[row[0] for row in WHOLE])
def test_whole_models_of_other_programs(layout, name, more, rename):
    torch.manual_seed(0)
    is_small = layout == "clip-reid"
    model = build(name, device="cpu" if is_small else "meta", **SMALL, **more)
    file = rename_heads(rename(model.state_dict()))
    assert not any(key.startswith(("head.", "backbone.")) for key in file)
    converted = convert_state_dict(file)
    assert converted.layout == layout
    assert converted.settings["TEST.NECK_FEAT"] == "before"
    assert converted.settings.get("MODEL.SIE.TOKENS") == ("class" if is_small else None)
    report = match_state_dict(model, converted.tensors)
    assert (report.missing, report.unexpected, report.mismatched) == ((), (), ())
    if is_small:
        state = model.state_dict()
        assert all(torch.equal(state[key], value) for key, value in converted.tensors.items())


def test_the_head_of_clip_has_the_class_token_and_its_projection():
    more = SMALL | CLIP | {"TEST__NECK_FEAT": "before"}
    model = build("timm:vit_base_patch16_clip_quickgelu_224", **more).eval()
    images = torch.rand(2, 3, 64, 32)
    output = model(images, torch.tensor([0, 2]))
    token = model.backbone(images, torch.tensor([0, 2]))[-1].flatten(1)
    projection = model.head.heads[1].reduction[0].weight
    torch.testing.assert_close(output.embedding, torch.cat([token, token @ projection.T], dim=1))
    assert [tuple(logits.shape) for logits in output.logits] == [(2, 5)] * 2
    # Only the class token receives the vector of the camera.
    tokens = model.backbone.embed(images[:1].expand(2, -1, -1, -1), torch.tensor([0, 2]))
    assert torch.equal(tokens[0, 1:], tokens[1, 1:])
    assert not torch.equal(tokens[0, 0], tokens[1, 0])


def test_the_head_of_pass_has_the_class_token_and_the_mean_of_the_parts():
    more = SMALL | {"MODEL__HEAD__NAME": "pass", "TEST__NECK_FEAT": "before"}
    model = build("vit_small_pass", **more).eval()
    with torch.inference_mode():
        images = torch.rand(2, 3, 64, 32)
        tokens = model.backbone.network(images)
        embedding = model(images).embedding
        model.head.options = replace(model.head.options, embedding="after")
        for scale, neck in enumerate(model.head.necks, start=1):
            neck.running_var.fill_(1 / scale**2 - neck.eps)
        after = model(images).embedding
    expected = torch.cat([tokens[:, 0], tokens[:, 1:4].mean(dim=1)], dim=1)
    torch.testing.assert_close(embedding, expected)
    parts = (tokens[:, 1:4] * torch.tensor([2.0, 3, 4])[:, None]).mean(dim=1)
    torch.testing.assert_close(after, torch.cat([tokens[:, 0], parts], dim=1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "name, head, message",
    [
        ("resnet18", "pass", "needs part tokens; choose vit_small_pass or vit_base_pass for"),
        ("timm:vit_tiny_patch16_224", "pass", "needs part tokens; choose vit_small_pass"),
        ("timm:vit_tiny_patch16_224", "clip", "EMBEDDING_DIM is 0 and the backbone returns class"),
        ("resnet18", "clip", "EMBEDDING_DIM is 0 and the backbone returns patches"),
    ],
)
def test_heads_need_their_tokens(name, head, message):
    with pytest.raises(ValueError, match=message):
        build(name, device="meta", MODEL__HEAD__NAME=head, **SMALL)
