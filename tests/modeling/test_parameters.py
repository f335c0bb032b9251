"""The layers of backbones, and the learning rates that layer decay gives them."""

import pytest
import torch
from ember_reid.config import load_config
from ember_reid.modeling.parameters import embedding_names, layer_depths
from ember_reid.solver import build_optimizers
from torch import nn

from tests.helpers.models import build, overrides

SIZE = {"INPUT__SIZE_TRAIN": "(64, 32)", "INPUT__SIZE_TEST": "(64, 32)"}
VIT, SWIN = "timm:vit_tiny_patch16_224", "timm:swin_tiny_patch4_window7_224"


@pytest.mark.parametrize(
    "name, num_layers, some",
    [
        ("resnet18", 9, {"conv1.weight": 0, "layer1.0.bn1.bias": 1, "layer4.1.conv2.weight": 8}),
        ("resnet50_bam", 17, {"layer1.2.conv1.weight": 3, "layer1.bam.channel.0.weight": 3}),
        ("mobilenet_v2", 19, {"features.0.0.weight": 0, "features.18.1.weight": 18}),
        ("osnet_x0_25", 7, {"conv1.conv.weight": 0, "pool2.0.conv.weight": 2}),
        ("densenet121", 59, {"features.conv0.weight": 0, "features.norm5.weight": 58}),
        (VIT, 13, {"network.pos_embed": 0, "network.norm.bias": 12}),
        (SWIN, 13, {"network.patch_embed.proj.weight": 0, "network.norm.weight": 12}),
        ("timm:convnext_atto", 13, {"network.stem.0.weight": 0}),
    ],
)
def test_the_stem_is_layer_0_and_each_block_is_one_layer(name, num_layers, some):
    model = build(name, device="cpu" if "timm" in name else "meta", **SIZE)
    depths = layer_depths(model)
    backbone = {n for n, _ in model.named_parameters() if n.startswith("backbone.")}
    assert {n for n in backbone - set(depths) if ".head." not in n} == set() < set(depths)
    assert sorted(set(depths.values())) == list(range(num_layers))
    assert {k: depths[f"backbone.{k}"] for k in some} == some


def test_the_branches_of_mgn_have_equal_depths():
    model = build("resnet50", device="meta", MODEL__HEAD__NAME="mgn")
    depths = layer_depths(model)
    deepest = {n for n, depth in depths.items() if depth == 16}
    assert {n.split(".")[2] for n in deepest} == {"0", "1", "2"}
    assert all(".layer4.2." in n for n in deepest)


def test_a_network_whose_layers_timm_does_not_order_is_refused():
    model = build("timm:convnext_atto")
    model.backbone.network = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="does not define for Linear; set it to 1"):
        layer_depths(model)


def rates_by_name(name, *words):
    cfg = load_config(None, [*overrides(name, **SIZE), *words])
    model = build(name, **SIZE)
    (optimizer,) = build_optimizers(
        cfg,
        model,
        nn.Identity(),
        depths=layer_depths(model) if cfg.SOLVER.LAYER_DECAY < 1 else None,
        embeddings=embedding_names(model),
    )
    names = {p: n for n, p in model.named_parameters()}
    return {
        names[p]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for p in group["params"]
    }


def test_each_layer_has_the_rate_of_the_next_one_times_the_decay():
    rates = rates_by_name(
        "mobilenet_v2",
        *("SOLVER.LAYER_DECAY", "0.5", "SOLVER.BASE_LR", "1", "SOLVER.HEAD_LR_FACTOR", "3"),
    )
    assert rates["head.classifier.weight"][0] == 3
    assert rates["backbone.features.18.0.weight"][0] == 0.5
    assert rates["backbone.features.17.conv.0.0.weight"][0] == 0.25
    assert rates["backbone.features.0.0.weight"][0] == 0.5**19


def test_embeddings_norms_and_biases_are_excluded_from_weight_decay():
    rates = rates_by_name(
        VIT,
        *("SOLVER.WEIGHT_DECAY", "0.05", "SOLVER.WEIGHT_DECAY_NORM", "0"),
        *("SOLVER.WEIGHT_DECAY_BIAS", "0"),
    )
    decayed = {n for n, (_, decay) in rates.items() if decay == 0.05}
    assert {decay for _, decay in rates.values()} == {0.05, 0.0}
    linear = {"qkv", "proj", "fc1", "fc2", "classifier"}
    assert decayed == {n for n in rates if n.endswith("weight") and n.split(".")[-2] in linear}
    assert "backbone.network.cls_token" in rates


def test_swin_excludes_the_tables_of_relative_positions():
    names = embedding_names(build(SWIN, **SIZE))
    assert len(names) == 12 and all(n.endswith("relative_position_bias_table") for n in names)


def test_layer_decay_1_changes_no_rate():
    assert {rate for rate, _ in rates_by_name("resnet18").values()} == {3.5e-4}
    assert torch.tensor(3.5e-4) * 1.0**18 == torch.tensor(3.5e-4)
