"""Standard recipes with backbones of every family, by MODEL.BACKBONE.NAME alone.

`make test-recipes` also trains with them.
"""

import logging
from pathlib import Path

import pytest
from ember_reid.config import load_config
from ember_reid.engine.distill.losses.build import check_student
from ember_reid.engine.handlers.gradients import Freeze, adjust_frozen_parts
from ember_reid.modeling import build_model, check_model
from torch import nn

from ember_reid import main
from tests.helpers.models import build

CONFIGS = Path(__file__).parents[2] / "configs"
VIT, SWIN = "timm:vit_tiny_patch16_224", "timm:swin_tiny_patch4_window7_224"
STRIDE, NON_LOCAL = "LAST_STRIDE 1 (now 2)", "NON_LOCAL (0, 2, 3, 0) (now ())"
# Backbones, arguments that make them small, and the settings of SBS that they lack. SBS freezes the
# backbone, has the last stride 1, non-local blocks, GeM pooling and a cosine classifier.
LACKING = [
    ("resnet18", "", "NON_LOCAL (0, 2, 3, 0) (now (0, 2, 2, 0))"),
    ("osnet_x0_25", "", f"{STRIDE}, {NON_LOCAL}"),
    ("mobilenet_v2", "", NON_LOCAL),
    (VIT, "{depth: 1}", f"{STRIDE}, {NON_LOCAL}"),
    (SWIN, "{depths: [1, 1, 1, 1], embed_dim: 24}", f"{STRIDE}, {NON_LOCAL}"),
    ("timm:convnext_atto", "{depths: [1, 1, 1, 1]}", f"{STRIDE}, {NON_LOCAL}"),
]
# The others, which make test-recipes builds.
FAMILIES = (
    *("resnet50_ibn_a", "resnet50_ibn_b", "se_resnext50", "resnest50", "densenet121"),
    *("osnet_ain_x1_0", "solider_swin_tiny", "vit_small_ics"),
)
RECIPES = (
    *("market1501/agw_R101-ibn", "strong-baseline/market1501/8_reranking"),
    *("torchreid/market1501/osnet_x1_0", "transreid/market1501/vit_base"),
    "solider/market1501/swin_tiny",
)


def load(recipe, name, *words):
    words = ["MODEL.BACKBONE.NAME", name, "MODEL.BACKBONE.WEIGHTS", "none", *words]
    return load_config(CONFIGS / f"{recipe}.yml", words)


@pytest.mark.parametrize("name, arguments, lacking", LACKING)
def test_settings_of_sbs_that_a_backbone_lacks_are_one_line(name, arguments, lacking, caplog):
    cfg = load("market1501/sbs_R50", name, "MODEL.BACKBONE.ARGS", arguments)
    with caplog.at_level(logging.INFO, "ember"):
        model = build_model(cfg, num_classes=3)
        freeze = Freeze(model, cfg.SOLVER.FREEZE, cfg.SOLVER.FREEZE_ITERS)
    assert freeze.modules == [model.backbone]
    (message,) = caplog.messages
    assert message.endswith(f"has no MODEL.BACKBONE setting {lacking}")


@pytest.mark.recipes
@pytest.mark.parametrize("name", FAMILIES)
def test_sbs_accepts_every_family(name):
    check_model(load("market1501/sbs_R50", name))


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name, arguments, _", LACKING[0::3], ids=["resnet18", "vit"])
def test_other_recipes_accept_a_resnet_and_a_transformer(recipe, name, arguments, _):
    words = ["MODEL.BACKBONE.ARGS", arguments] if "resnet" not in name else []
    check_model(load(recipe, name, *words))


@pytest.mark.recipes
@pytest.mark.parametrize("recipe", ["market1501/sbs_R50", "solider/market1501/swin_tiny"])
@pytest.mark.parametrize(
    "name",
    [row[0] for row in LACKING]
    + ["densenet121", "resnest50", "vit_small_pass", "timm:mobilenetv4_conv_small"],
)
def test_a_recipe_trains_with_another_backbone(recipe, name, tiny_market, tmp_path):
    words = "SOLVER.IMS_PER_BATCH 8 DATALOADER.NUM_INSTANCES 2 SOLVER.MAX_EPOCHS 1"
    words += " SOLVER.WARMUP_EPOCHS 0 SOLVER.DELAY_EPOCHS 0 SOLVER.FREEZE_ITERS 1 LOG.TO ()"
    words += " INPUT.SIZE_TRAIN (64,32) INPUT.SIZE_TEST (64,32) DATALOADER.NUM_WORKERS 0 DEVICE cpu"
    words += f" MODEL.BACKBONE.NAME {name} MODEL.BACKBONE.WEIGHTS none OUTPUT_DIR {tmp_path}"
    words += f" DATASETS.NAMES ['market1501:{tiny_market}']"
    assert main.main(["-c", str(CONFIGS / f"{recipe}.yml"), *words.split()]) == 0
    assert (tmp_path / "results.json").is_file()


class Parts(nn.Module):
    """A module with some parts that have names of a backbone's."""

    def __init__(self, *names):
        super().__init__()
        self.backbone = nn.ModuleDict(dict.fromkeys(names, nn.Identity()))
        self.head = nn.Identity()


STAGES = tuple(f"backbone.layer{stage}" for stage in (1, 2, 3, 4))


@pytest.mark.parametrize(
    "own, names, expected",
    [
        # Frozen stages of a ResNet in a network of timm, and in one of another kind.
        (("network",), ("backbone.conv1", *STAGES, "head"), ("backbone", "head")),
        (("features",), ("backbone.layer1", "head"), ("head",)),
        (("network",), ("backbone", *STAGES), ("backbone",)),
        # The patch embedding of a transformer in a ResNet.
        (("conv1", "layer1"), ("backbone.network.patch_embed",), ()),
        (("conv1", "layer1"), ("backbone.conv1",), ("backbone.conv1",)),
    ],
)
def test_frozen_parts_of_another_network(own, names, expected, caplog):
    with caplog.at_level(logging.INFO, "ember"):
        assert adjust_frozen_parts(Parts(*own), names) == expected
    assert len(caplog.messages) == (expected != names)
    if caplog.messages:
        assert caplog.messages[0].endswith(f"(now {expected})")


@pytest.mark.parametrize("own", ["network", "layer1"])
def test_misspelled_parts_are_errors(own):
    for name in ("backbone.layer11", "hed"):
        with pytest.raises(ValueError, match=f"SOLVER.FREEZE names {name}, the model has"):
            Freeze(Parts(own), (name,), 1)


@pytest.mark.parametrize(
    "words, message",
    [
        ("KD.FEATURE.WEIGHT 1 KD.EMA.ENABLED True", "maps of several stages, which timm:vit_tiny"),
        ("KD.SELF.WEIGHT 1 KD.SELF.TEACHER 2 KD.SELF.LEARNERS (1,)", r"maps of 1 stage\(s\)"),
    ],
)
@pytest.mark.parametrize("tokens", ["class", "patches"])
def test_transformers_have_no_maps_of_stages(tokens, words, message):
    cfg = load_config(None, ["MODEL.BACKBONE.NAME", VIT, *words.split()])
    more = {"MODEL__HEAD__TOKENS": tokens, "MODEL__BACKBONE__ARGS": "{depth: 1}"}
    with pytest.raises(ValueError, match=message):
        check_student(cfg, build(VIT, device="meta", **more))
