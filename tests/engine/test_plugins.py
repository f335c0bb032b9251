"""Plug-ins: a separate package with a backbone, a head, a loss, a dataset and a handler."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ember_reid.config import load_config
from ember_reid.engine import plugins
from ember_reid.engine.build import read_test_config
from ember_reid.engine.checkpoint import load_checkpoint
from ember_reid.modeling.backbones import BACKBONES
from ember_reid.tools import recipes
from ember_reid.tools.recipes import command
from PIL import Image

from ember_reid import main

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "tests" / "helpers" / "example_plugin"
WORDS = """IMPORTS ('ember_reid_example',) MODEL.BACKBONE.NAME example-small
    MODEL.BACKBONE.WEIGHTS none MODEL.HEAD.NAME example-average LOSS.PLUGIN.NAME example-norm
    LOSS.PLUGIN.WEIGHT 0.1 HANDLERS ('example-timer',)""".split()


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory):
    """The package as pip installs it: the module and its entry point."""
    folder = tmp_path_factory.mktemp("site-packages")
    shutil.copy(PACKAGE / "ember_reid_example.py", folder)
    info = folder / "ember_reid_example-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: ember-reid-example\nVersion: 0.1\n"
    )
    (info / "entry_points.txt").write_text("[ember_reid.plugins]\nexample = ember_reid_example\n")
    (folder / "ember_reid_broken.py").write_text("raise RuntimeError('no license')\n")
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("example")
    for folder, pids in (("train", range(4)), ("query", range(4, 6)), ("gallery", range(4, 6))):
        (root / folder).mkdir()
        for pid in pids:
            for number in range(2):
                camid = {"query": 0, "gallery": 1}.get(folder, number)
                color = (40 * pid, 250 - 40 * pid, 90 + 10 * number)
                Image.new("RGB", (16, 32), color).save(
                    root / folder / f"{pid}_{camid}_{number}.jpg"
                )
    return root


@pytest.fixture(scope="module")
def run(data, train, tmp_path_factory) -> Path:
    return train(
        tmp_path_factory.mktemp("plugin") / "run",
        *WORDS, "DATASETS.NAMES", f"('example:{data}',)",
    )  # fmt: skip


def test_a_plugin_trains_and_its_checkpoint_names_it(run):
    content = load_checkpoint(run / "checkpoints" / "last.pt")
    assert "IMPORTS:\n- ember_reid_example" in content["config"]
    assert content["classes"] == [["example", str(pid)] for pid in range(4)]
    assert any(name.endswith("plugin.target") for name in content["criterion"])
    assert content["model"]["head.classifier.weight"].shape == (4, 16)
    log = (run / "log.txt").read_text()
    assert re.search(r"epoch 2 took \d+\.\d s", log)
    assert '"plugin"' in (run / "metrics.jsonl").read_text()


def test_checkpoints_import_plugins_only_if_the_user_names_them(run, tmp_path, monkeypatch, capsys):
    best = str(run / "checkpoints" / "best.pt")
    monkeypatch.setattr(plugins, "_loaded", set())
    words = ["-t", "TEST.WEIGHT", best, "OUTPUT_DIR", str(tmp_path / "test")]
    assert main.main(words) == 2
    error = capsys.readouterr().err
    assert f"{best} needs the plug-in(s) ember_reid_example" in error and error.count("\n") == 1
    assert "IMPORTS \"('ember_reid_example',)\"" in error
    assert main.main([*words, "IMPORTS", "('ember_reid_example',)"]) == 0


def test_reading_a_checkpoint_imports_nothing(run):
    """In a process of its own, in which the plug-in is installed but not imported."""
    code = (
        "import sys; from ember_reid.engine import load_model\n"
        "try: load_model(sys.argv[1], device='cpu')\n"
        "except ValueError as error: print(error)\n"
        "print('ember_reid_example' in sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, str(run / "checkpoints" / "best.pt")],
        capture_output=True, text=True, env={"PYTHONPATH": ":".join(sys.path)}, timeout=120,
    )  # fmt: skip
    first, second = found.stdout.splitlines()
    assert "needs the plug-in(s) ember_reid_example" in first and second == "False"


def test_a_teacher_needs_its_plugins(run, tiny_recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(plugins, "_loaded", set())
    best = str(run / "checkpoints" / "best.pt")
    words = ["KD.TEACHERS", f"('{best}',)", "KD.EMBEDDING.WEIGHT", "1"]
    assert main.main(["-c", str(tiny_recipe), *words, "OUTPUT_DIR", str(tmp_path / "x")]) == 2
    assert f"{best} needs the plug-in(s) ember_reid_example" in capsys.readouterr().err


def test_entry_points_are_names_of_plugins(monkeypatch):
    monkeypatch.setattr(plugins, "_loaded", set())
    plugins.load_plugins(["example"])
    assert plugins._loaded == {"example"} and "example-small" in BACKBONES


def test_the_list_of_recipes_names_plugins_and_what_they_add(monkeypatch, capsys):
    monkeypatch.setattr(plugins, "_loaded", set())
    # Other tests in this process register names, too.
    registered = {
        kind: [name for name in names if name.startswith("example")]
        for kind, names in plugins.registered_names().items()
    }
    monkeypatch.setattr(plugins, "_registered", registered)
    monkeypatch.setattr(command, "recipe_names", lambda: ["quickstart/student"])
    assert recipes.main([]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "installed plug-ins, for IMPORTS: example"
    assert recipes.main(["--imports", "example"]) == 0
    assert capsys.readouterr().out.splitlines()[-5:] == [
        "backbone: example-small",
        "head: example-average",
        "loss: example-norm",
        "dataset: example",
        "handler: example-timer",
    ]
    assert recipes.main(["--imports", "no_such_module"]) == 2
    assert "installed plug-ins: example" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("IMPORTS ('no_such_module',)", "IMPORTS names 'no_such_module', but there is no such"),
        ("IMPORTS ('no_such_module',)", "installed plug-ins: example"),
        (
            "IMPORTS ('ember_reid_broken',)",
            "ember_reid_broken cannot be imported: RuntimeError: no",
        ),
        ("LOSS.PLUGIN.NAME nothing", "LOSS.PLUGIN.NAME is 'nothing', choose one of"),
        ("HANDLERS ('nothing',)", "HANDLERS names 'nothing', choose from"),
        ("MODEL.HEAD.NAME nothing", "MODEL.HEAD.NAME is 'nothing'; choose one of global, mgn"),
        (
            "IMPORTS ('ember_reid_example',) LOSS.PLUGIN.NAME example-norm LOSS.PLUGIN.ARGS {x:1}",
            "LOSS.PLUGIN.ARGS '{x:1}' do not fit",
        ),
        (
            "IMPORTS ('example',) MODEL.HEAD.NAME nothing",
            "choose one of global, mgn, jpm, clip, pass, example-average",
        ),
        (
            "IMPORTS ('ember_reid_example',) MODEL.BACKBONE.NAME example-smal",
            "did you mean example-small?",
        ),
    ],
)
def test_errors_are_one_line(capsys, tiny_recipe, tmp_path, words, message):
    out = tmp_path / "out"
    assert main.main(["-c", str(tiny_recipe), *words.split(), "OUTPUT_DIR", str(out)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not out.exists()


@pytest.mark.parametrize(
    ("name", "factory", "message"),
    [
        ("Bad Name", print, "the name of a backbone is 'Bad Name', allowed: lower-case letters"),
        ("resnet50", print, "there is already a backbone called resnet50"),
        ("fine", 3, "the backbone fine must be a function, found int"),
    ],
)
def test_registrations_are_checked(name, factory, message):
    with pytest.raises(ValueError, match=message):
        plugins.register_backbone(name, factory)
    assert "fine" not in BACKBONES


def test_a_recipe_without_plugins_needs_none(tiny_run):
    words = ["TEST.WEIGHT", str(tiny_run / "checkpoints" / "best.pt")]
    assert read_test_config(None, words).IMPORTS == load_config(None).IMPORTS == ()


def test_the_code_in_the_document_is_that_of_the_package():
    text = (ROOT / "docs" / "how-to" / "extend.md").read_text()
    code = (PACKAGE / "ember_reid_example.py").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.S)
    assert len(blocks) == 5
    assert all(block in code for block in blocks)


@pytest.mark.extras
@pytest.mark.parametrize(
    "words",
    [
        "LOSS.PML.NAME SupCon LOSS.PML.ARGS {temperature:\\ 0.1}",
        "LOSS.PML.NAME MultiSimilarity LOSS.PML.WEIGHT 0.5",
        "LOSS.PML.NAME ProxyAnchorLoss LOSS.TRIPLET.WEIGHT 0 LOSS.CE.WEIGHT 0",
    ],
)
def test_losses_of_pytorch_metric_learning_train(train, tmp_path, words):
    pytest.importorskip("pytorch_metric_learning")
    folder = train(
        tmp_path / "pml",
        *words.replace("\\ ", "\0").replace(" ", "\n").replace("\0", " ").split("\n"),
    )
    assert '"pml"' in (folder / "metrics.jsonl").read_text()


@pytest.mark.extras
def test_a_loss_of_pytorch_metric_learning_has_the_value_that_the_library_computes():
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    from ember_reid.engine.losses.external.build import build_external_losses
    from ember_reid.modeling import ReidOutput

    cfg = load_config(None, ["LOSS.PML.NAME", "SupCon", "LOSS.PML.ARGS", "{temperature: 0.2}"])
    loss = build_external_losses(cfg, num_classes=4, feature_dim=6)["pml"]
    features, pids = torch.randn(8, 6), torch.arange(8) // 2
    from ember_reid.data.batch import Batch

    value = loss.function(
        ReidOutput(features, features=(features,)), Batch(features, pids, pids, pids)
    )
    assert torch.equal(value, losses.SupConLoss(temperature=0.2)(features, pids))
    cfg = load_config(None, ["LOSS.PML.NAME", "SubCon"])
    with pytest.raises(ValueError, match="similar losses: SupConLoss"):
        build_external_losses(cfg, num_classes=4, feature_dim=6)
