"""Every file in configs/ loads, names known data and builds; one recipe of each kind trains.

`make test-recipes` trains and scores them all (some minutes).
"""

from functools import cache
from pathlib import Path

import pytest
import torch
import yaml
from ember_reid.config import load_config, parse_config
from ember_reid.data.datasets import DATASETS
from ember_reid.modeling import build_model
from ember_reid.modeling.backbones import PERSON_BACKBONES

from tests.helpers.tiny import write_market

ROOT = Path(__file__).parents[1]
FILES = sorted(path.relative_to(ROOT) for path in (ROOT / "configs").rglob("*.yml"))
TREES = {path: yaml.safe_load((ROOT / path).read_text(encoding="utf-8")) or {} for path in FILES}
RECIPES = [path for path, tree in TREES.items() if "OUTPUT_DIR" in tree]

# One recipe of each kind of model, losses and optimizer.
KINDS = [
    "market1501/bot_R18",
    "market1501/agw_R50",
    "market1501/sbs_S50",
    "market1501/mgn_R50-ibn",
    "veri776/sbs_R50-ibn",
    "strong-baseline/market1501/1_standard",
    "strong-baseline/market1501/8_reranking",
    "strong-baseline/dukemtmc/se_resnext50",
    "transreid/market1501/deit_small_transreid",
]
SMALL = {
    "SOLVER.IMS_PER_BATCH": "16",
    "SOLVER.MAX_EPOCHS": "1",
    "SOLVER.WARMUP_EPOCHS": "0",
    "SOLVER.DELAY_EPOCHS": "0",
    "SOLVER.EVAL_PERIOD": "1",
    "SOLVER.FREEZE_ITERS": "1",
    "SOLVER.LOG_PERIOD": "1",
    "DATALOADER.NUM_INSTANCES": "4",
    "DATALOADER.NUM_WORKERS": "0",
    "MODEL.BACKBONE.WEIGHTS": "none",
    # The images of these runs have no viewpoints.
    "MODEL.SIE.VIEWS": "0",
    "TEST.IMS_PER_BATCH": "16",
    "DATASETS.TESTS": "()",
    "LOG.TO": "()",
    "LOG.PROGRESS": "False",
    "DEVICE": "cpu",
}
# For recipes with unlabeled images.
SMALL_CLUSTERS = {
    "ADAPT.WEIGHTS": "",
    "ADAPT.MMT.WEIGHTS": "",
    "ADAPT.ITERS": "2",
    "ADAPT.CLUSTER.MIN_SAMPLES": "2",
    "ADAPT.CLUSTER.K1": "6",
    "ADAPT.CLUSTER.K2": "2",
}
# Networks of timm of which two blocks are enough here.
VITS = ("timm:vit_", "timm:deit_")

load = cache(load_config)


def names(paths):
    return [path.relative_to("configs").with_suffix("").as_posix() for path in paths]


@cache
def build_once(model_section: str, size: str) -> int:
    """The number of parameters of a model on the meta device; equal models are built once."""
    overrides = ["INPUT.SIZE_TRAIN", size, "INPUT.SIZE_TEST", size]
    cfg = parse_config(model_section, overrides)
    with torch.device("meta"):
        model = build_model(cfg, num_classes=10, pretrained=False)
    return sum(parameter.numel() for parameter in model.parameters())


def is_of_timm(path: Path) -> bool:
    """Whether the network is built by timm; its image size is fixed, and building takes longer."""
    name = load(ROOT / path).MODEL.BACKBONE.NAME
    return name.startswith("timm:") or name in PERSON_BACKBONES


def buildable() -> list:
    """All files; `make test-recipes` builds networks of timm of recipes that are not in KINDS."""
    slow = {path for path in FILES if is_of_timm(path) and names([path])[0] not in KINDS}
    return [
        pytest.param(path, id=names([path])[0], marks=pytest.mark.recipes if path in slow else ())
        for path in FILES
    ]


@pytest.mark.parametrize("path", buildable())
def test_every_file_builds(path):
    cfg = load(ROOT / path)
    section = "MODEL:\n" + "".join(f"  {line}\n" for line in cfg.MODEL.dump().splitlines())
    size = cfg.INPUT.SIZE_TRAIN if is_of_timm(path) else (256, 128)
    assert build_once(section, str(tuple(size))) > 0


@pytest.mark.parametrize("path", FILES, ids=names(FILES))
def test_every_file_loads_and_names_known_data(path):
    cfg = load(ROOT / path)
    named = {
        name.removeprefix("unlabeled:").split(":")[0].split("@")[0]
        for name in (*cfg.DATASETS.NAMES, *cfg.DATASETS.TESTS, *cfg.DATASETS.UNLABELED)
    }
    assert named <= set(DATASETS)


def test_a_file_is_a_recipe_or_the_base_of_one():
    bases = set()
    for path, tree in TREES.items():
        named = tree.get("_BASE_", ())
        for base in (named,) if isinstance(named, str) else named:
            bases.add((ROOT / path.parent / base).resolve().relative_to(ROOT))
    assert set(FILES) - bases - set(RECIPES) == set()


@pytest.mark.parametrize("path", RECIPES, ids=names(RECIPES))
def test_every_recipe_says_how_to_run_it(path):
    head = [
        line
        for line in (ROOT / path).read_text(encoding="utf-8").splitlines()
        if line.startswith("#")
    ]
    assert any(f"-c {path.as_posix()}" in line for line in head)


def test_no_two_recipes_write_into_one_folder():
    folders = [load(ROOT / path).OUTPUT_DIR for path in RECIPES]
    assert len(folders) == len(set(folders))


def trainable() -> list:
    """All recipes that need no teacher; `make test-recipes` runs those not in KINDS."""
    alone = [path for path in RECIPES if not load(ROOT / path).KD.TEACHERS]
    return [
        pytest.param(name, marks=() if name in KINDS else pytest.mark.recipes)
        for name in names(alone)
    ]


def small_size(name: str) -> str:
    """An image size that the network of a recipe supports: strides of 32, patches of 14."""
    if "dinov2" in name:
        return "(56, 28)"
    needs_more = "densenet" in name or is_of_timm(Path("configs") / f"{name}.yml")
    return "(64, 32)" if needs_more else "(48, 16)"


@pytest.mark.parametrize("name", trainable())
def test_a_recipe_trains_two_iterations_and_is_scored(name, tiny_market, tmp_path, monkeypatch):
    from ember_reid import main

    monkeypatch.setattr(
        "ember_reid.engine.checkpoint_writer.save_checkpoint",
        lambda path, content, previous: None,
    )
    folder = tmp_path / "run"
    small = SMALL | {"DATASETS.NAMES": f"['market1501:{tiny_market}']", "OUTPUT_DIR": str(folder)}
    small |= dict.fromkeys(("INPUT.SIZE_TRAIN", "INPUT.SIZE_TEST"), small_size(name))
    cfg = load(ROOT / "configs" / f"{name}.yml")
    if cfg.DATASETS.UNLABELED:
        other = write_market(tmp_path / "unlabeled")
        small |= SMALL_CLUSTERS | {"DATASETS.UNLABELED": f"['unlabeled:market1501:{other}']"}
        small |= {} if cfg.DATASETS.NAMES else {"DATASETS.NAMES": "()"}
    if cfg.MODEL.BACKBONE.NAME.startswith(VITS):
        small |= {"MODEL.BACKBONE.ARGS": "{depth: 2}"}
    words = [word for pair in small.items() for word in pair]
    assert main.main(["-c", str(ROOT / "configs" / f"{name}.yml"), *words]) == 0
    rows = (folder / "metrics.jsonl").read_text().splitlines()
    assert '"iteration": 2' in rows[-1] or any('"iteration": 2' in row for row in rows)
    assert (folder / "results.json").is_file()
