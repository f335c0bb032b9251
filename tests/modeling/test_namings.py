"""Names of foreign backbones: every tensor is mapped, and values are reordered where needed."""

import re

import pytest
import timm
import torch
from ember_reid.modeling.backbones.person_vit import create_ics_stem
from ember_reid.modeling.backbones.solider import (
    PaddedBlock,
    SemanticMerging,
    make_controllable,
)
from ember_reid.modeling.layouts import convert_pretrained
from ember_reid.modeling.namings import NAMINGS
from ember_reid.modeling.positions import (
    BICUBIC,
    BICUBIC_ANTIALIASED,
    BICUBIC_OFFSET,
    BILINEAR,
    Resampling,
    find_grid,
    resample_positions,
)
from ember_reid.modeling.pretrained import _fit_to_timm
from ember_reid.modeling.weight_files import match_state_dict
from timm.models.swin_transformer import SwinTransformerBlock


def create_vit(**arguments):
    """A vision transformer of timm with one block."""
    size = {"img_size": (64, 32), "depth": 1, "embed_dim": 8, "num_heads": 1, "num_classes": 0}
    return timm.create_model("vit_tiny_patch16_224", **size, **arguments)


def create_solider():
    network = timm.models.SwinTransformer(
        (64, 32), depths=(1, 1, 1, 1), embed_dim=8, num_heads=(1, 1, 1, 1), num_classes=0
    )
    make_controllable(network, 0.2)
    return network


def create_ics():
    network = create_vit()
    network.patch_embed.proj = create_ics_stem(8)
    return network


def substitute(state, *pairs):
    renamed = {}
    for name, tensor in state.items():
        for pattern, replacement in pairs:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    return renamed


def solider(state):
    def stage_before(match):
        return f"stages.{int(match[1]) - 1}.downsample."

    renamed = substitute(
        state,
        (r"^layers\.(\d)\.downsample\.", stage_before),
        (r"^stages\.(\d)\.downsample\.semantic_([wb])", r"semantic_embed_\2.\1"),
        (r"^layers\.", "stages."),
        (r"\.attn\.", ".attn.w_msa."),
        (r"\.mlp\.fc1\.", ".ffn.layers.0.0."),
        (r"\.mlp\.fc2\.", ".ffn.layers.1."),
        (r"^patch_embed\.proj\.", "patch_embed.projection."),
        (r"^norm\.", "norm3."),
    )
    unused = ("norm0.weight", "norm2.bias", "semantic_embed_w.3.weight")
    renamed |= dict.fromkeys(unused, torch.zeros(1))
    return renamed | {"stages.0.blocks.0.attn.w_msa.relative_position_index": torch.zeros(49, 49)}


def part_tokens(state):
    kept = {k: v for k, v in state.items() if k not in ("reg_token", "pos_embed")}
    names = ("part_token1", "part_token2", "part_token3")
    names += ("cls_pos", "part1_pos", "part2_pos", "part3_pos")
    kept |= dict.fromkeys(names, state["cls_token"])
    return kept | {"pos_embed": state["pos_embed"][:, 4:]}


def clip(state):
    renamed = substitute(
        state,
        (r"^patch_embed\.proj\.", "conv1."),
        (r"^norm_pre\.", "ln_pre."),
        (r"^norm\.", "ln_post."),
        (r"^blocks\.", "transformer.resblocks."),
        (r"\.norm([12])\.", r".ln_\1."),
        (r"\.attn\.qkv\.", ".attn.in_proj_"),
        (r"\.attn\.proj\.", ".attn.out_proj."),
        (r"\.mlp\.fc1\.", ".mlp.c_fc."),
        (r"\.mlp\.fc2\.", ".mlp.c_proj."),
    )
    renamed["class_embedding"] = renamed.pop("cls_token")[0, 0]
    renamed["positional_embedding"] = renamed.pop("pos_embed")[0]
    return renamed | {"proj": torch.zeros(2, 2)}


def dinov2(state):
    mask = {"mask_token": torch.zeros(1)}
    if "reg_token" not in state:
        return state | mask
    renamed = substitute(state, (r"^reg_token$", "register_tokens"))
    positions = torch.cat([state["cls_token"], state["pos_embed"]], dim=1)
    return renamed | mask | {"pos_embed": positions}


def ics(state):
    return substitute(state, (r"^patch_embed\.proj\.(conv|proj)\.", r"patch_embed.\1."))


def mae(state):
    return state | {"decoder_embed.weight": torch.zeros(2), "mask_token": torch.zeros(1)}


# (naming, network, our names -> theirs, prefix in the file)
FILES = [
    ("SOLIDER", create_solider, solider, "backbone."),
    ("SOLIDER", create_solider, solider, "base."),
    ("PASS", lambda: create_vit(reg_tokens=3), part_tokens, "backbone."),
    ("TransReID-SSL with ICS", create_ics, ics, "base."),
    ("CLIP", lambda: create_vit(pre_norm=True), clip, "visual."),
    ("CLIP", lambda: create_vit(pre_norm=True), clip, "image_encoder."),
    ("DINOv2", lambda: create_vit(init_values=1.0), dinov2, ""),
    (
        "DINOv2 with registers",
        lambda: create_vit(init_values=1.0, reg_tokens=2, no_embed_class=True),
        dinov2,
        "",
    ),
    ("MAE with decoder", create_vit, mae, ""),
]


@pytest.mark.parametrize("naming, create, rename, prefix", FILES)
def test_every_tensor_is_mapped(naming, create, rename, prefix):
    network = create()
    file = {prefix + name: tensor for name, tensor in rename(network.state_dict()).items()}
    converted = convert_pretrained(file)
    assert naming in converted.layout
    report = match_state_dict(network, converted.tensors)
    assert (report.missing, report.unexpected, report.mismatched) == ((), (), ())


def test_namings_have_examples_here():
    # timm converts DINOv3.
    assert {naming.name for naming in NAMINGS} == {file[0] for file in FILES} | {"DINOv3"}


def test_merged_patches_are_reordered():
    # One channel, rows and columns 0 and 1: SOLIDER has row by row, timm column by column.
    file = {
        "stages.0.blocks.0.attn.w_msa.qkv.weight": torch.zeros(1),
        "stages.1.blocks.0.norm1.weight": torch.zeros(1),
        "stages.0.downsample.norm.weight": torch.tensor([0.0, 1.0, 10.0, 11.0]),
    }
    converted = convert_pretrained(file).tensors
    assert converted["layers.1.downsample.norm.weight"].tolist() == [0.0, 10.0, 1.0, 11.0]


def test_registers_of_dinov2_have_no_position():
    file = {
        "register_tokens": torch.full((1, 2, 1), 5.0),
        "cls_token": torch.full((1, 1, 1), 1.0),
        "pos_embed": torch.tensor([[[10.0], [20.0], [30.0]]]),
        "mask_token": torch.zeros(1),
    }
    converted = convert_pretrained(file)
    assert converted.tensors.keys() == {"reg_token", "cls_token", "pos_embed"}
    assert converted.tensors["cls_token"].tolist() == [[[11.0]]]
    assert converted.tensors["pos_embed"].tolist() == [[[20.0], [30.0]]]


@pytest.mark.parametrize(
    "names, resampling",
    [
        (["teacher.backbone.blocks.0.norm1.weight"], BICUBIC_OFFSET),
        (["backbone.blocks.0.norm1.weight"], BICUBIC_OFFSET),
        (["base.patch_embed.proj.weight"], BILINEAR),
        (["image_encoder.transformer.resblocks.0.ln_1.weight"], BILINEAR),
        (["visual.transformer.resblocks.0.ln_1.weight"], BICUBIC_ANTIALIASED),
        (["register_tokens"], BICUBIC_ANTIALIASED),
        (["mask_token", "blocks.0.ls1.gamma"], BICUBIC_OFFSET),
        (["decoder_pos_embed"], BICUBIC),
        (["blocks.0.norm1.weight"], None),
    ],
)
def test_each_program_has_its_resampling(names, resampling):
    assert convert_pretrained(dict.fromkeys(names, torch.zeros(1))).resampling == resampling


@pytest.mark.parametrize(
    "num_patches, grid",
    [(196, (14, 14)), (128, (16, 8)), (192, (24, 8)), (210, (21, 10)), (310, (31, 10))],
)
def test_grids_of_patches(num_patches, grid):
    assert find_grid(num_patches) == grid


def test_an_unknown_grid_is_refused():
    with pytest.raises(ValueError, match="30 patches form no grid that is square, 2:1 or 3:1"):
        find_grid(30)


def test_positions_are_interpolated_and_other_tokens_kept():
    # A class token of 9, and rows 0 0 / 1 1.
    positions = torch.tensor([9.0, 0, 0, 1, 1]).reshape(1, 5, 1)
    found = resample_positions(positions, (4, 2), num_prefix=1, resampling=BILINEAR)
    assert found.flatten().tolist() == [9, 0, 0, 0.25, 0.25, 0.75, 0.75, 1, 1]
    assert resample_positions(positions, (2, 2), num_prefix=1, resampling=BILINEAR) is positions


def test_an_offset_moves_the_sampling_points():
    positions = torch.arange(16.0).reshape(1, 16, 1)
    shifted = Resampling("bilinear", offset=0.1)
    found = resample_positions(positions, (8, 4), num_prefix=0, resampling=shifted)
    # Row i is sampled at (i + 0.5) * 4 / 8.1 - 0.5. As many columns as before stay what they are.
    rows = torch.tensor([min(max((i + 0.5) * 4 / 8.1 - 0.5, 0), 3) for i in range(8)])
    expected = 4 * rows[:, None] + torch.arange(4)
    assert torch.allclose(found.reshape(8, 4), expected, atol=1e-5)


def test_a_square_grid_with_as_many_patches_as_the_new_one_is_resampled():
    positions = torch.randn(1, 16, 3)
    found = resample_positions(positions, (8, 2), num_prefix=0, resampling=BICUBIC)
    assert found.shape == (1, 16, 3)
    assert not torch.equal(found, positions)


def test_windows_of_solider_are_padded_before_they_are_shifted():
    torch.manual_seed(0)
    padded = PaddedBlock(8, (5, 3), 2, window_size=4, shift_size=2, always_partition=True).eval()
    whole = SwinTransformerBlock(8, (8, 4), 2, window_size=4, shift_size=2, always_partition=True)
    whole.load_state_dict(padded.state_dict())
    maps = torch.randn(1, 5, 3, 8)
    larger = torch.zeros(1, 8, 4, 8)
    larger[:, :5, :3] = maps
    with torch.inference_mode():
        assert torch.equal(padded._attn(maps), whole.eval()._attn(larger)[:, :5, :3])


def test_the_semantic_weight_scales_and_shifts():
    merging = SemanticMerging(2, 0.25)
    assert not any(p.requires_grad for n, p in merging.named_parameters() if "semantic" in n)
    with torch.no_grad():
        merging.semantic_w.weight.copy_(torch.tensor([[4.0, 0.0]] * 4))
        merging.semantic_b.weight.copy_(torch.tensor([[0.0, 8.0]] * 4))
        maps = torch.randn(1, 4, 2, 2)
        found = merging(maps)
        merging.semantic_b.weight.zero_()
        # softplus(0.25 * 4) = log(1 + e) and 0.75 * 8 = 6
        assert torch.allclose(found, merging(maps) + 6, atol=1e-5)
        merging.semantic_w.weight.zero_()
        plain = merging(maps) / torch.tensor(2.0).log()
    assert torch.allclose(found, plain * torch.tensor(1 + 2.718281828).log() + 6, atol=1e-4)


def test_biases_that_a_variant_of_dinov3_lacks_are_not_ignored():
    network = timm.models.Eva(
        (32, 32), 16, embed_dim=8, depth=1, num_heads=1, num_classes=0, qkv_bias=False
    )
    file = {"storage_tokens": torch.zeros(1), "blocks.0.attn.qkv.bias": torch.zeros(24)}
    assert "blocks.0.attn.qkv.bias" not in _fit_to_timm(network, file, None)
    file["blocks.0.attn.qkv.bias"] += 1
    assert "blocks.0.attn.qkv.bias" in _fit_to_timm(network, file, None)
