import json

import numpy as np
import pytest
import torch
from ember_reid.modeling.output import ReidOutput
from ember_reid.tools.benchmark import latency
from ember_reid.tools.heatmaps import command as heatmaps
from PIL import Image
from torch import nn


class TwoChannels(nn.Module):
    """A backbone with a given map; its head adds the first channel and subtracts the second."""

    def __init__(self, maps: torch.Tensor):
        super().__init__()
        self.backbone = lambda images: (torch.zeros_like(maps), maps)

    def head(self, maps) -> ReidOutput:
        pooled = maps[-1].mean(dim=(2, 3))
        return ReidOutput(embedding=pooled, logits=(pooled[:, :1] - pooled[:, 1:],))


def test_heat_by_hand():
    # Gradients are 1/2 and -1/2 per channel (mean over 2 positions), so the heat is
    # relu(a - b) / 2, scaled to 1.
    # [1, 2, 1, 2]
    maps = torch.tensor([[[[4.0, 1.0]], [[0.0, 3.0]]]])
    heat = heatmaps.grad_cam(TwoChannels(maps), torch.zeros(1, 3, 1, 2), heatmaps.strongest_logit)
    assert heat.tolist() == [[[1.0, 0.0]]]
    doubled = torch.cat([maps, 2 * maps])
    both = heatmaps.grad_cam(
        TwoChannels(doubled), torch.zeros(2, 3, 1, 2), heatmaps.strongest_logit
    )
    assert both.tolist() == [[[1.0, 0.0]]] * 2


def test_a_map_with_only_negative_influence_is_shifted():
    # Weighted sums: -1/2, -3/2; -1, -1.
    maps = torch.tensor([[[[0.0, 0.0]], [[1.0, 3.0]]], [[[0.0, 0.0]], [[2.0, 2.0]]]])
    heat = heatmaps.grad_cam(TwoChannels(maps), torch.zeros(2, 3, 1, 2), heatmaps.strongest_logit)
    assert heat.tolist() == [[[1.0, 0.0]], [[0.0, 0.0]]]


def test_heat_is_laid_over_from_blue_to_red():
    image = Image.new("RGB", (4, 2), (100, 100, 100))
    shown = np.asarray(
        heatmaps.overlay(image, torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]]))
    )
    base = 100 * (1 - heatmaps.OPACITY)
    assert shown[0, 0].tolist() == pytest.approx(
        [base, base, base + heatmaps.OPACITY * 127.5], abs=1
    )
    assert shown[0, 3].tolist() == pytest.approx(
        [base + heatmaps.OPACITY * 127.5, base, base], abs=1
    )


@pytest.mark.parametrize("what", heatmaps.CHOICES)
def test_pages_of_two_networks(tiny_run, tmp_path, what, capsys):
    model = str(tiny_run / "checkpoints" / "best.pt")
    words = ["--models", model, model, "--what", what, "--count", "2", "--out", str(tmp_path)]
    assert heatmaps.main(words) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "index.html")
    page = (tmp_path / "index.html").read_text()
    assert page.count("data:image/jpeg;base64,") == {"identities": 2 * 3, "pairs": 2 * 6}[what]
    assert "http:" not in page
    assert Image.open(tmp_path / "002.png").height == heatmaps.HEIGHT


def test_networks_keep_their_classifiers(tiny_run):
    path = str(tiny_run / "checkpoints" / "best.pt")
    (network,) = heatmaps.load_networks([path], torch.device("cpu"))
    trained = torch.load(path, weights_only=True)["model"]["head.classifier.weight"]
    assert torch.equal(network.model.head.classifier.weight, trained)


@pytest.mark.parametrize("head", ["global", "jpm"])
def test_the_heat_of_a_class_token_weights_the_patches(head):
    from ember_reid.config import load_config
    from ember_reid.modeling import build_model

    words = f"MODEL.BACKBONE.NAME timm:vit_tiny_patch16_224 MODEL.HEAD.NAME {head}"
    sizes = "MODEL.BACKBONE.WEIGHTS none INPUT.SIZE_TRAIN (64,32) INPUT.SIZE_TEST (64,32)"
    model = build_model(
        load_config(None, f"{words} {sizes}".split()), num_classes=5, pretrained=False
    ).eval()
    heat = heatmaps.grad_cam(model, torch.randn(2, 3, 64, 32), heatmaps.pair_cosine)
    tokens = getattr(model.backbone, "vit", model.backbone).tokens
    assert tokens == "class" and heat.shape == (2, 64, 32)
    assert heat.amax().item() == pytest.approx(1.0)


def test_user_errors_are_one_line(tmp_path, capsys):
    assert heatmaps.main(["--models", str(tmp_path / "no.pt"), "--out", str(tmp_path / "out")]) == 2
    assert "no.pt does not exist" in capsys.readouterr().err
    assert heatmaps.main(["--models", "x.pt", "--count", "0", "--out", str(tmp_path / "out")]) == 2
    assert "--count is 0" in capsys.readouterr().err


def test_latency_of_checkpoints(tiny_run, capsys):
    import argparse

    parser = argparse.ArgumentParser()
    latency.add_options(parser)
    model = str(tiny_run / "checkpoints" / "best.pt")
    options = parser.parse_args(
        [model, "--batch", "2", "--repeats", "2", "--device", "cpu", "--precision", "float32"]
    )
    latency.run(options)
    head, _, row = capsys.readouterr().out.strip().splitlines()[-3:]
    assert "batch of 2 (ms)" in head
    cells = [cell.strip() for cell in row.split("|")]
    scores = json.loads((tiny_run / "results.json").read_text())["market1501"]
    assert cells[:4] == ["tiny", f"{scores['mAP']:.2%}", f"{scores['Rank-1']:.2%}", "32x16"]
    # Convolutions 3x3: 3 -> 8 at 16x8 positions, 8 -> 16 at 8x4; classifier 16 -> 1.
    multiply_adds = 27 * 8 * 128 + 72 * 16 * 32 + 16
    assert float(cells[5]) == pytest.approx(multiply_adds / 1e9, abs=5e-4)
    assert float(cells[8]) > 0
    with pytest.raises(ValueError, match="--batch is 0"):
        latency.run(parser.parse_args([model, "--batch", "0"]))


def test_flops_and_parameters_by_hand(tiny_run):
    from ember_reid.config import load_config
    from ember_reid.engine.latency import count_gflops, count_parameters
    from ember_reid.modeling import build_model

    words = "MODEL.BACKBONE.NAME tiny INPUT.SIZE_TEST (32,16) INPUT.SIZE_TRAIN (32,16)".split()
    model = build_model(load_config(None, words), num_classes=9, pretrained=False).eval()
    gflops = count_gflops(model, torch.zeros(1, 3, 32, 16))
    assert gflops * 1e9 == pytest.approx(27 * 8 * 128 + 72 * 16 * 32 + 16 * 9)
    convolutions, norms = 27 * 8 + 8 + 72 * 16 + 16, 2 * 8 + 2 * 16
    # The neck counts, the classifier does not.
    assert count_parameters(model) == convolutions + norms + 2 * 16


@pytest.mark.parametrize("num_classes", [-1, 2**70, "5", None, float("nan"), [1]])
def test_damaged_checkpoints_are_one_line(tiny_run, tmp_path, capsys, num_classes):
    content = torch.load(tiny_run / "checkpoints" / "best.pt", weights_only=True)
    path = tmp_path / "damaged.pt"
    torch.save(content | {"num_classes": num_classes}, path)
    words = ["-c", str(tiny_run / "config.yml"), "--models", str(path), "--out", str(tmp_path)]
    assert heatmaps.main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("heatmaps: ") and error.count("\n") == 1
