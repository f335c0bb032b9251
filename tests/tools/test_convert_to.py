"""`convert --to`: our checkpoints become files of FastReID and torchreid."""

import pytest
import torch
from ember_reid.config import load_config
from ember_reid.engine.checkpoint import save_checkpoint
from ember_reid.modeling import build_model, load_weights
from ember_reid.modeling.export_layouts import required_settings, torchreid_name
from ember_reid.tools import convert

from tests.helpers.foreign_layouts import fastreid, torchreid
from tests.helpers.models import overrides, randomize

CEIL = {"MODEL__BACKBONE__STEM_POOL": "ceil"}
OSNET = {
    "MODEL__HEAD__EMBEDDING_DIM": 512,
    "MODEL__HEAD__REDUCTION": "bn_relu",
    "MODEL__HEAD__NECK": "none",
}


FILES = {"fastreid": ("resnet18", CEIL), "torchreid": ("osnet_x0_25", OSNET)}


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """Our checkpoints with 7 identities and random weights: program -> (file, config, model)."""
    created = {}
    for program, (name, more) in FILES.items():
        cfg = load_config(None, overrides(name, INPUT__SIZE_TEST="(64, 32)", **more))
        model = build_model(cfg, num_classes=7, pretrained=False).eval()
        randomize(model)
        path = tmp_path_factory.mktemp("ours") / f"{program}.pt"
        with torch.no_grad():
            content = {"config": cfg.dump(), "num_classes": 7, "model": model.state_dict()}
            save_checkpoint(path, content)
        created[program] = path, cfg, model
    return created


@pytest.mark.parametrize(
    ("program", "rename", "key"),
    [("fastreid", fastreid, "model"), ("torchreid", torchreid, "state_dict")],
)
def test_the_file_has_their_names_and_converts_back(program, rename, key, ours, tmp_path, capsys):
    path, cfg, model = ours[program]
    out = tmp_path / "theirs.pth"
    assert convert.main([str(path), "--to", program, "-o", str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"theirs.pth: for {program}, " in printed
    assert "7 identities, images of 64 x 32 pixels" in printed
    content = torch.load(out, weights_only=True)
    added = {"classifier.bias"}
    assert content[key].keys() - added == rename(model.state_dict()).keys() - added
    if program == "torchreid":
        about = {key: content[key] for key in ("model_name", "num_classes", "img_size")}
        assert about == {"model_name": "osnet_x0_25", "num_classes": 7, "img_size": [64, 32]}
    back = build_model(cfg, num_classes=7, pretrained=False).eval()
    load_weights(back, out)
    images = torch.rand(2, 3, 64, 32)
    with torch.inference_mode():
        assert torch.equal(back(images).embedding, model(images).embedding)


@pytest.mark.parametrize(
    ("program", "words", "message"),
    [
        (
            "fastreid",
            "MODEL.BACKBONE.STEM_POOL padded",
            "networks have MODEL.BACKBONE.STEM_POOL ceil (here padded); train with these settings",
        ),
        (
            "fastreid",
            "MODEL.BACKBONE.STEM_RELU False TEST.NECK_FEAT before",
            "MODEL.BACKBONE.STEM_RELU True (here False), TEST.NECK_FEAT after (here before)",
        ),
        (
            "fastreid",
            "INPUT.PIXEL_MEAN (0.5,0.5,0.5)",
            "fastreid normalizes images as for ImageNet, not with ((0.5, 0.5, 0.5), ",
        ),
        ("torchreid", "MODEL.POOL.NAME max", "MODEL.POOL.NAME avg (here max)"),
    ],
)
def test_networks_that_compute_something_else_are_refused(
    program, words, message, ours, tmp_path, capsys
):
    out = tmp_path / "theirs.pth"
    file = str(ours[program][0])
    assert convert.main([file, "--to", program, "-o", str(out), *words.split()]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not out.exists()


def test_to_excludes_a_recipe_and_keeps_existing_files(ours, tmp_path, capsys):
    words = [str(ours["fastreid"][0]), "--to", "fastreid", "-o", str(tmp_path / "theirs.pth")]
    assert convert.main([*words, "--adopt"]) == 2
    assert "--to excludes -c, --adopt and --from" in capsys.readouterr().err
    (tmp_path / "theirs.pth").write_text("precious")
    assert convert.main(words) == 2
    assert "theirs.pth exists; choose another name" in capsys.readouterr().err
    assert (tmp_path / "theirs.pth").read_text() == "precious"


def test_what_names_and_shapes_do_not_show():
    resnet = {"conv1.weight": torch.zeros(1), "layer4.0.conv1.weight": torch.zeros(1)}
    assert required_settings(resnet, "torchreid")["MODEL.BACKBONE.LAST_STRIDE"] == 2
    reduced = resnet | {"fc.0.weight": torch.zeros(512, 4)}
    assert required_settings(reduced, "torchreid")["MODEL.BACKBONE.LAST_STRIDE"] == 1
    non_local = {"backbone.NL_2.0.g.weight": torch.zeros(1)}
    assert required_settings(non_local, "fastreid")["MODEL.BACKBONE.NON_LOCAL_WIDTH"] == 1
    assert required_settings(non_local, "fastreid")["MODEL.HEAD.REDUCTION"] == "linear"


@pytest.mark.parametrize(
    ("names", "blocks"),
    [
        (["layer1.0.conv3"], (0, 2, 3, 0)),
        (["layer1.0.conv3", "layer3.22.conv1"], (0, 2, 9, 0)),
        # ResNet-34 and ResNeSt.
        ([], ()),
        (["layer1.0.conv3", "conv1.6"], ()),
    ],
)
def test_non_local_blocks_of_fastreid(names, blocks):
    exported = {f"backbone.{name}.weight": torch.zeros(1) for name in [*names, "NL_2.0.g"]}
    assert required_settings(exported, "fastreid")["MODEL.BACKBONE.NON_LOCAL"] == blocks


@pytest.mark.parametrize(
    ("backbone", "dim", "name"),
    [
        ("resnet50", 512, "resnet50_fc512"),
        ("resnet50", 0, "resnet50"),
        ("osnet_x1_0", 512, "osnet_x1_0"),
    ],
)
def test_names_of_torchreid(backbone, dim, name):
    tensors = {"fc.0.weight": torch.zeros(dim, 4)} if dim else {}
    assert torchreid_name(backbone, tensors) == name


def test_networks_of_other_dimensions_have_no_name_in_torchreid():
    with pytest.raises(ValueError, match="torchreid has no network osnet_x1_0_fc0 "):
        torchreid_name("osnet_x1_0", {})
