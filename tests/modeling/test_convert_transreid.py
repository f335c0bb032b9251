"""Whole models of TransReID: every tensor is mapped, and camera embeddings are reshaped."""

import re

import pytest
import torch
from ember_reid.modeling.convert import convert_state_dict
from ember_reid.modeling.layouts import convert_pretrained
from ember_reid.modeling.weight_files import match_state_dict

from tests.helpers.models import build

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
