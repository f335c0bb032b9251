"""Runs with a small vision transformer: distillation, captured steps, resuming, export."""

import copy
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ember_reid.config import load_config, parse_config
from ember_reid.engine import load_model
from ember_reid.engine.build import build_trained_model
from ember_reid.engine.checkpoint import load_checkpoint
from ember_reid.engine.handlers.build import build_control, build_handlers
from ember_reid.engine.handlers.checkpoints import resume_engine
from ember_reid.modeling import build_model
from ember_reid.tools.export.command import main as export
from ember_reid.tools.heatmaps.command import main as heatmaps
from PIL import Image

from ember_reid import main
from tests.engine.test_graph_step import advance, assert_equal, create, execute

ARGUMENTS = "{depth: 2, embed_dim: 12, num_heads: 2, patch_size: 8}"
VIT = ["MODEL.BACKBONE.NAME", "timm:vit_tiny_patch16_224", "MODEL.BACKBONE.ARGS", ARGUMENTS]
SIE = ["MODEL.SIE.CAMERAS", "2"]
SHORT = ["SOLVER.MAX_EPOCHS", "1", "SOLVER.WARMUP_EPOCHS", "0"]
JPM = ["MODEL.HEAD.NAME", "jpm", "MODEL.JPM.PARTS", "2"]


def words(base=None):
    """The overrides of a small ViT, with LoRA if a file of weights is given."""
    if base is None:
        return VIT
    return [*VIT, "MODEL.BACKBONE.WEIGHTS", str(base), "MODEL.LORA.RANK", "2"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A weight file of the small ViT for images of 32x16."""
    sizes = ["INPUT.SIZE_TRAIN", "(32,16)", "INPUT.SIZE_TEST", "(32,16)"]
    cfg = load_config(None, [*VIT, "MODEL.BACKBONE.WEIGHTS", "none", *sizes])
    torch.manual_seed(0)
    model = build_model(cfg, num_classes=2)
    path = tmp_path_factory.mktemp("base") / "vit.pth"
    torch.save(model.backbone.network.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def teacher(tmp_path_factory, train):
    """The folder of a ViT with side information and a class token."""
    return train(tmp_path_factory.mktemp("vit") / "teacher", *VIT, *SIE, *SHORT)


def test_a_transformer_teaches_a_small_network(teacher, train, tmp_path):
    checkpoint = teacher / "checkpoints" / "best.pt"
    losses = "KD.LOGITS.WEIGHT 1 KD.DISTANCES.WEIGHT 1 KD.EMBEDDING.WEIGHT 1".split()
    student = train(tmp_path / "student", "KD.TEACHERS", f"('{checkpoint}',)", *losses, *SHORT)
    lines = [json.loads(line) for line in (student / "metrics.jsonl").read_text().splitlines()]
    text = json.dumps(lines)
    assert all(name in text for name in ("kd", "distances", "embedding")) and "NaN" not in text
    scores = json.loads((student / "results.json").read_text())["market1501"]
    assert 0 < scores["mAP"] <= 1 and scores["num_query"] == 4
    rows = json.loads((student / "distillation.json").read_text())["rows"]
    assert [row["name"].split()[0] for row in rows] == ["teacher", "student"]
    # The teacher is scored with the cameras of the images.
    own = json.loads((teacher / "results.json").read_text())["market1501"]["mAP"]
    assert rows[0]["mAP"] == pytest.approx(own, abs=0.2)


def test_heatmaps_of_a_network_with_a_class_token(teacher, tmp_path):
    out = tmp_path / "heat"
    model = str(teacher / "checkpoints" / "best.pt")
    assert heatmaps(["--models", model, "--out", str(out), "--count", "1"]) == 0
    assert (out / "index.html").read_text().count("data:image/jpeg;base64,") >= 2


STEPS = {
    "side information and jigsaw patches": [*VIT, *SIE, *JPM],
    "adapters": None,
}


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=pytest.mark.extras if k == "adapters" else ()) for k in STEPS]
)
def test_a_captured_step_has_the_bits_of_the_plain_step(kind, base, tiny_recipe, tmp_path):
    if STEPS[kind] is None:
        pytest.importorskip("peft")
    chosen = STEPS[kind] or words(base)
    plain = create(tiny_recipe, "", tmp_path / "plain", rehearse=False, more=chosen)
    captured = create(tiny_recipe, "", tmp_path / "captured", rehearse=True, more=chosen)
    assert execute(captured, until=6) == execute(plain, until=6)
    assert_equal(captured, plain)
    assert captured.captured.runner.failure == "" and captured.captured.runner.num_replays == 3


@pytest.mark.extras
def test_adapters_resume_with_the_bits_of_an_undisturbed_run(base, tiny_recipe, tmp_path):
    pytest.importorskip("peft")
    ema = "SOLVER.EMA_DECAY 0.9"
    whole = create(tiny_recipe, ema, tmp_path / "whole", rehearse=False, more=words(base))
    execute(whole)
    first = create(tiny_recipe, ema, tmp_path / "first", rehearse=False, more=words(base))
    execute(first, until=6)
    content = copy.deepcopy(build_control(first).checkpoints.content(first.trainer))
    assert not any(".network." in k and ".lora_" not in k for k in content["model"])
    second = create(tiny_recipe, ema, tmp_path / "second", rehearse=False, more=words(base))
    control = build_control(second)
    for handler in build_handlers(second, control):
        handler.attach(second.trainer)
    progress = control.checkpoints.restore(content)
    resume_engine(second.trainer, progress, second.train_loader, max_epochs=4)
    advance(second, until=10)
    assert_equal(second, whole)
    parameters = dict(whole.model.named_parameters())
    frozen = [name for name, p in second.model.named_parameters() if not p.requires_grad]
    assert all(torch.equal(second.model.get_parameter(name), parameters[name]) for name in frozen)


def test_a_checkpoint_lists_missing_weights_also_after_resuming(base, tiny_recipe, tmp_path):
    state = torch.load(base)
    del state["norm.weight"]
    torch.save(state, tmp_path / "partial.pth")
    partial = ["MODEL.BACKBONE.WEIGHTS", str(tmp_path / "partial.pth")]
    partial += ["MODEL.BACKBONE.PARTIAL", "True", "OUTPUT_DIR", str(tmp_path / "run")]
    command = ["-c", str(tiny_recipe), *VIT, *partial, "SOLVER.MAX_EPOCHS"]
    last = tmp_path / "run" / "checkpoints" / "last.pt"
    assert main.main([*command, "1"]) == 0
    assert load_checkpoint(last)["missing_weights"] == ["norm.weight"]
    assert main.main([*command, "2", "--resume"]) == 0
    assert load_checkpoint(last)["missing_weights"] == ["norm.weight"]


def embed_plainly(checkpoint, photos):
    """Embeddings of length 1 by the network of the checkpoint itself; cameras are unknown."""
    cfg = parse_config(load_checkpoint(checkpoint)["config"], ["TEST.WEIGHT", str(checkpoint)])
    model = build_trained_model(cfg, torch.device("cpu"))
    pixels = np.stack([np.array(Image.open(path)) for path in photos])
    mean, std = torch.tensor(cfg.INPUT.PIXEL_MEAN), torch.tensor(cfg.INPUT.PIXEL_STD)
    images = ((torch.from_numpy(pixels) / 255 - mean) / std).permute(0, 3, 1, 2)
    with torch.inference_mode():
        return model, F.normalize(model(images).embedding)


def check_export(checkpoint, photos, out):
    model, expected = embed_plainly(checkpoint, photos)
    np.testing.assert_allclose(load_model(checkpoint, device="cpu").embed(photos), expected, **NEAR)
    assert export([str(checkpoint), "--to", "torchscript", "--out", str(out)]) == 0
    exported = load_model(out, device="cpu", trust=True)
    np.testing.assert_allclose(exported.embed(photos), expected, **NEAR)
    return model


NEAR = {"atol": 1e-5, "rtol": 0}


def test_side_information_is_exported_as_the_mean_of_the_cameras(teacher, tiny_market, tmp_path):
    photos = sorted((tiny_market / "query").glob("*.jpg"))
    model = check_export(teacher / "checkpoints" / "best.pt", photos, tmp_path / "vit.ts")
    assert model.backbone.uses_cameras


@pytest.mark.extras
def test_adapters_are_exported_as_part_of_the_weights(base, train, tiny_market, tmp_path):
    pytest.importorskip("peft")
    photos = sorted((tiny_market / "query").glob("*.jpg"))
    run = train(tmp_path / "lora", *words(base), *SIE, "SOLVER.BASE_LR", "0.01")
    model = check_export(run / "checkpoints" / "best.pt", photos, tmp_path / "lora.ts")
    trained = [p for name, p in model.named_parameters() if "lora_B" in name]
    assert trained and all(parameter.any() for parameter in trained)
