"""The explanation of a recipe: words, costs and differences."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from ember_reid.config import load_config
from ember_reid.tools.explain import main
from ember_reid.tools.explain.command import BARS, draw_learning_rate
from ember_reid.tools.explain.cost import mean_training_flops, measure_cost
from ember_reid.tools.explain.differences import Difference, find_differences
from ember_reid.tools.explain.page import learning_rates
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
FEW = ("resnet18", "mobilenet_v2")
NETWORKS = (
    "resnet18",
    "resnet50",
    "resnet50_ibn_a",
    "resnet50_bam",
    "se_resnext50",
    "resnest50",
    "osnet_x1_0",
    "osnet_ain_x1_0",
    "mobilenet_v2",
    "densenet121",
)

# Predicts and measures in a process of its own, whose allocator returns freed memory at once.
MEASURE = """
import ctypes, gc, json, sys
import torch
from ember_reid.config import load_config
from ember_reid.modeling import build_model
from ember_reid.tools.explain.cost import measure_cost

ctypes.CDLL(None).mallopt(-3, 65536)  # M_MMAP_THRESHOLD
torch.set_num_threads(1)
BATCH, SIZE = 8, (128, 64)

def resident():
    for line in open("/proc/self/status"):
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024

found = {}
for name in sys.argv[1:]:
    words = ["MODEL.BACKBONE.NAME", name, "MODEL.BACKBONE.WEIGHTS", "none"]
    if not name.startswith(("res", "se_")):
        words += ["MODEL.BACKBONE.LAST_STRIDE", "2"]
    model = build_model(load_config(None, words), num_classes=10)
    images = torch.randn(BATCH, 3, *SIZE)
    for _ in range(2):  # the first pass also fills caches
        output = None
        gc.collect()
        before = resident()
        output = model(images)
        measured = resident() - before
    output = None
    found[name] = [measure_cost(model, SIZE).activation_bytes * BATCH, measured]
print(json.dumps(found))
"""


def test_parameters_operations_and_activations_of_a_network_small_enough_to_count_by_hand():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.ReLU())
    cost = measure_cost(network, (8, 4))
    assert cost.parameters == 4 * 3 * 9
    assert cost.flops == 2 * (8 * 4) * 4 * 3 * 9
    # The convolution keeps its input, the ReLU its output; four bytes per value.
    assert cost.activation_bytes == (3 + 4) * (8 * 4) * 4


def test_operations_of_a_training_with_two_sizes():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.ReLU())
    per_pixel = 2 * 4 * 3 * 9
    mean = mean_training_flops(network, [(4, 2), (8, 4)], [0.75])
    assert mean == per_pixel * (0.75 * 8 + 0.25 * 32)
    assert mean_training_flops(network, [(8, 4)], []) == measure_cost(network, (8, 4)).flops


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/status")
@pytest.mark.parametrize("networks", [FEW, pytest.param(NETWORKS, marks=pytest.mark.recipes)])
def test_predicted_activation_memory_is_within_15_percent_of_the_measured(networks):
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *networks], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    ratios = {
        name: predicted / measured
        for name, (predicted, measured) in json.loads(done.stdout.splitlines()[-1]).items()
    }
    assert {name: ratio for name, ratio in ratios.items() if not 0.85 < ratio < 1.15} == {}


def test_a_recipe_in_words(tiny_recipe, capsys):
    assert main([str(tiny_recipe), "MODEL.BACKBONE.NAME", "resnet18", "LOSS.CE.WEIGHT", "2"]) == 0
    out = capsys.readouterr().out
    assert "a batch: 4 identities x 2 images" in out
    assert "2 epochs of 4 iterations, 8 in total; 64 images, " in out
    assert "2 x cross-entropy (epsilon 0.1" in out
    assert "images 32 x 16 pixels" in out


def test_progressive_resizing_and_a_trapezoid_in_words(tiny_recipe, capsys):
    words = "INPUT.SCALES (0.5,1.0) INPUT.SCALE_STEPS (0.6,) SOLVER.SCHEDULE linear "
    words += "SOLVER.DELAY_EPOCHS 1"
    assert main([str(tiny_recipe), *words.split()]) == 0
    out = capsys.readouterr().out
    assert "resized to 0.5 of it until 60% of the training, then 1 of it" in out
    assert "then constant until epoch 1, then linear decay to 0.01 of it" in out


def test_the_learning_rate_is_drawn_relative_to_its_maximum():
    words = ["SOLVER.MAX_EPOCHS", "4", "SOLVER.WARMUP_EPOCHS", "0", "SOLVER.STEPS", "(2,)"]
    drawn = draw_learning_rate(load_config(None, [*words, "SOLVER.GAMMA", "0.1"]))
    # By epoch, counted from 1: epoch 2 of 4 is the first with the lower rate.
    assert drawn == BARS[-1] * 15 + BARS[round(0.1 * (len(BARS) - 1))] * 45


def test_differences_leave_out_what_does_not_change_the_training():
    first = {"OUTPUT_DIR": "a", "SOLVER": {"BASE_LR": 1.0, "STEPS": (1, 2)}, "SEED": 1}
    second = {"OUTPUT_DIR": "b", "SOLVER": {"BASE_LR": 2.0, "STEPS": (1, 2)}, "SEED": 1}
    assert find_differences(first, second) == [Difference("SOLVER.BASE_LR", 1.0, 2.0)]


def test_two_recipes_side_by_side(tiny_recipe, tmp_path, capsys):
    other = tmp_path / "other.yml"
    other.write_text(f"_BASE_: {tiny_recipe}\nSOLVER: {{BASE_LR: 0.5}}\n")
    assert main([str(tiny_recipe), "--against", str(other)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 2 and out[1].split() == ["SOLVER.BASE_LR", "0.00035", "->", "0.5"]
    assert main([str(tiny_recipe), "--against", str(tiny_recipe)]) == 0
    assert "have the same training settings" in capsys.readouterr().out


def test_a_page_has_the_learning_rate_as_a_chart(tiny_recipe, tmp_path, capsys):
    page, other = tmp_path / "page.html", tmp_path / "other.yml"
    other.write_text(f"_BASE_: {tiny_recipe}\nSOLVER: {{BASE_LR: 0.5}}\n")
    assert main([str(tiny_recipe), "--out", str(page)]) == 0
    assert f"written: {page}" in capsys.readouterr().out
    html = page.read_text(encoding="utf-8")
    assert "a batch: 4 identities x 2 images" in html and html.count("<polyline") == 1
    assert "<script" not in html and "http" not in html.replace("http-equiv", "")
    assert main([str(tiny_recipe), "--against", str(other), "--out", str(page)]) == 0
    html = page.read_text(encoding="utf-8")
    assert html.count("<polyline") == 2 and "<td>SOLVER.BASE_LR</td><td>0.00035</td>" in html


def test_the_points_of_the_chart_are_learning_rates():
    words = ["SOLVER.MAX_EPOCHS", "4", "SOLVER.WARMUP_EPOCHS", "0", "SOLVER.STEPS", "(2,)"]
    words += ["SOLVER.BASE_LR", "0.1", "SOLVER.GAMMA", "0.5"]
    points = dict(learning_rates(load_config(None, words)))
    assert len(points) == 400 and (points[0.01], points[1.0]) == (0.1, 0.1)
    assert (points[1.01], points[4.0]) == (0.05, 0.05)


def test_the_score_of_a_shipped_recipe_has_its_source(capsys):
    assert main(["market1501/sbs_R50"]) == 0
    out = capsys.readouterr().out
    assert "published: Rank-1 95.4, mAP 88.2, mINP 64.8" in out
    assert "source: FastReID, MODEL_ZOO.md, 2020-05-04" in out
    assert "iterations are unknown without the dataset" in out


def test_an_unknown_recipe_is_one_line(capsys):
    assert main(["no_such.yml"]) == 2
    assert capsys.readouterr().err.startswith("explain: ")
