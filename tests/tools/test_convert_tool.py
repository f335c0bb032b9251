"""tools.convert, and a peer's file given to TEST.WEIGHT directly."""

import pytest
import torch
from ember_reid.config import parse_config
from ember_reid.engine.checkpoint import load_checkpoint
from ember_reid.modeling import build_model
from ember_reid.tools import convert

from tests.helpers.foreign_layouts import strong_baseline
from tests.helpers.models import build, randomize


@pytest.fixture
def foreign(tmp_path):
    """A strong-baseline file of ResNet-18 with 7 identities, and the model that it holds."""
    model = build("resnet18", num_classes=7, MODEL__BACKBONE__STEM_RELU=False).eval()
    randomize(model)
    torch.save(strong_baseline(model.state_dict()), tmp_path / "resnet18_model_120.pth")
    (tmp_path / "recipe.yml").write_text("MODEL: {BACKBONE: {NAME: resnet18}}\n")
    return model


def run(folder, *more):
    words = ["resnet18_model_120.pth", "-c", "recipe.yml", "-o", "out.pt"]
    return convert.main([*(str(folder / w) if "." in w else w for w in words), *more])


def test_a_converted_checkpoint_carries_its_recipe_and_gives_the_same_embeddings(
    foreign, tmp_path, capsys
):
    assert run(tmp_path, "--adopt") == 0
    assert "from strong-baseline, 7 identities, 126 tensors fit" in capsys.readouterr().out
    content = load_checkpoint(tmp_path / "out.pt")
    cfg = parse_config(content["config"])
    assert cfg.MODEL.BACKBONE.STEM_RELU is False and cfg.INPUT.INTERPOLATION == "bilinear"
    model = build_model(cfg, num_classes=content["num_classes"], pretrained=False).eval()
    model.load_state_dict(content["model"])
    images = torch.rand(2, 3, 64, 32)
    with torch.inference_mode():
        assert torch.equal(model(images).embedding, foreign(images).embedding)


def test_without_adopt_the_recipe_is_used_and_differences_are_logged(foreign, tmp_path, capfd):
    assert run(tmp_path) == 0
    assert "made with MODEL.BACKBONE.STEM_RELU False, the configuration has True" in "".join(
        capfd.readouterr()
    )
    assert (
        parse_config(load_checkpoint(tmp_path / "out.pt")["config"]).MODEL.BACKBONE.STEM_RELU
        is True
    )


def test_user_errors_are_one_line_and_write_nothing(foreign, tmp_path, capsys):
    assert run(tmp_path, "MODEL.BACKBONE.NAME", "resnet34") == 2
    error = capsys.readouterr().err
    assert (
        "another architecture (its layout is that of strong-baseline" in error
        and "missing" in error
    )
    assert not (tmp_path / "out.pt").exists()
    (tmp_path / "out.pt").write_text("precious")
    assert run(tmp_path) == 2
    assert "out.pt exists; choose another name" in capsys.readouterr().err
    assert (tmp_path / "out.pt").read_text() == "precious"


def test_a_damaged_checkpoint_of_ours_is_refused(foreign, tmp_path, capsys):
    assert run(tmp_path) == 0
    content = torch.load(tmp_path / "out.pt", weights_only=True)
    next(iter(content["model"].values())).mul_(2)
    torch.save(content, tmp_path / "resnet18_model_120.pth")
    (tmp_path / "out.pt").unlink()
    capsys.readouterr()
    assert run(tmp_path) == 2
    error = capsys.readouterr().err
    assert ".pth is damaged: model/" in error and "differs from what was saved" in error
    assert not (tmp_path / "out.pt").exists()


def test_main_tests_a_peers_file_directly(foreign, tmp_path, tiny_market, capfd):
    from ember_reid import main

    words = [
        "DATASETS.NAMES",
        f"['market1501:{tiny_market}']",
        "INPUT.SIZE_TEST",
        "(32, 16)",
        "DEVICE",
        "cpu",
    ]
    words += ["DATALOADER.NUM_WORKERS", "0", "OUTPUT_DIR", str(tmp_path / "run")]
    weight = str(tmp_path / "resnet18_model_120.pth")
    assert main.main(["-t", "-c", str(tmp_path / "recipe.yml"), "TEST.WEIGHT", weight, *words]) == 0
    assert "(layout: strong-baseline)" in "".join(capfd.readouterr())
    assert (tmp_path / "run" / "results.json").is_file()
