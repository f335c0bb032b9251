"""The command `ember-reid`: every example in a help text runs, scaled down."""

import csv
import re
import shlex
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from ember_reid.config import read_header
from ember_reid.tools.common.cli import CommandGroup, describe, printable
from ember_reid.tools.common.inputs import split_overrides
from ember_reid.tools.recipes.command import find_recipes, read_score

from ember_reid import cli

ROOT = Path(__file__).resolve().parents[1]
SMALL = (
    "INPUT.SIZE_TRAIN (32,16) INPUT.SIZE_TEST (32,16) MODEL.BACKBONE.NAME tiny "
    "MODEL.BACKBONE.WEIGHTS none MODEL.BACKBONE.WIDTH 1.0 SOLVER.MAX_EPOCHS 1 "
    "SOLVER.WARMUP_EPOCHS 0 SOLVER.IMS_PER_BATCH 8 DATALOADER.NUM_INSTANCES 2 "
    "DATALOADER.NUM_WORKERS 0 TEST.RE_RANKING False LOG.TO () "
    "LOG.PROGRESS False DEVICE cpu NUM_THREADS 1 NUM_PROCESSES 1 OVERWRITE True"
).split()
RUN = "runs/quickstart"
TEACHER = ["KD.TEACHERS", f"('{RUN}/checkpoints/best.pt',)"]
# Words appended to the examples of a command.
SCALED_DOWN = {
    "train": SMALL,
    "demo": SMALL,
    "test": ["DEVICE", "cpu"],
    "resume": ["SOLVER.MAX_EPOCHS", "3"],
    "explain": SMALL,
    "label": "--k1 4 --k2 1 --radius 0.4".split(),
    "leave-one-out": SMALL,
    "report": ["--count", "1"],
    "visualize": ["--count", "1"],
    "heatmaps": ["--count", "1"],
    "calibrate": ["--resamples", "20"],
    "check-gpu": ["--rehearse", "--parts", "machine"],
    "search": ["--out", "found"],
    "benchmark cluster": "--items 200 --identities 10 --dim 16".split(),
    "benchmark distill": ["--rounds", "2", *SMALL, *TEACHER],
    "benchmark evaluate": "--shape tiny --repeats 1".split(),
    "benchmark host": ["--iterations", "3", *SMALL],
    "benchmark latency": "--batch 2 --repeats 2 --device cpu --precision float32".split(),
    "benchmark search": "--entries 500 --dim 8 --queries 5 --identities 20".split(),
    "benchmark train": ["--iterations", "2", "--warmup", "1", *SMALL],
    "benchmark triplet": ["--iterations", "1", *SMALL],
}
# Examples that need a dataset, a file of another code base, or an optional package.
NEEDS = re.compile(r"/data\b|\.pth\b|\.mp4\b|--faiss")
# Tested in tests/tools/test_serve.py.
NEED_A_SERVER = ("serve", "benchmark serve")
OPTIONAL = {"onnx": "onnxruntime"}


def help_of(name: str, capsys) -> str:
    with pytest.raises(SystemExit) as stopped:
        cli.main([*name.split(), "--help"])
    assert stopped.value.code == 0
    return capsys.readouterr().out


def examples(text: str, name: str) -> list[list[str]]:
    """The indented commands of a help text, without the words `ember-reid NAME`."""
    joined = text.replace("\\\n", " ")
    lines = re.findall(rf"^    ember-reid {name}( .*)?$", joined, re.MULTILINE)
    return [shlex.split(line) for line in lines]


def leaf_commands() -> list[str]:
    """All commands, with those of groups as "group command"."""
    leaves = []
    for name, (target, _) in cli._COMMANDS.items():
        module, _, function = target.partition(":")
        owner = getattr(getattr(import_module(module), function), "__self__", None)
        if isinstance(owner, CommandGroup):
            leaves += [f"{name} {leaf}" for leaf in owner.commands]
        else:
            leaves.append(name)
    return leaves


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, tiny_run, tiny_market) -> Path:
    """A directory with the files that the examples name."""
    folder = tmp_path_factory.mktemp("workplace")
    shutil.copytree(tiny_run, folder / RUN)
    shutil.copytree(tiny_run, folder / "runs" / "other")
    (folder / "datasets" / "quickstart").mkdir(parents=True)
    market = folder / "datasets" / "quickstart" / "market1501"
    shutil.copytree(tiny_market, market)
    images = sorted((market / "bounding_box_test").glob("00*.jpg"))
    (folder / "photos").mkdir()
    shutil.copy(images[1], folder / "photos" / "1.jpg")
    shutil.copy(images[2], folder / "query.jpg")
    (folder / "tracks.csv").write_text("frame,track,left,top,width,height\n0,1,0,0,16,32\n")
    with open(folder / "cows.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "pid", "camid", "split"])
        for name, split in (
            ("bounding_box_train", "train"),
            ("query", "query"),
            ("bounding_box_test", "gallery"),
        ):
            for path in sorted((market / name).glob("00[01][1-9]*.jpg")):
                pid, camera = path.name.split("_")[:2]
                writer.writerow([path, f"cow {pid}", camera[:2], split])
    return folder


def fill_gallery() -> None:
    """Create the images and the gallery that the examples name."""
    Path("known/Ben").mkdir(parents=True, exist_ok=True)
    Path("new").mkdir(exist_ok=True)
    for name in ("anna1.jpg", "anna2.jpg", "photo.jpg", "known/Ben/1.jpg", "new/1.jpg"):
        shutil.copy("query.jpg", name)
    Path("people.db").unlink(missing_ok=True)
    for name in ("Anna", "id-000007", "id-000012"):
        weights = f"weights={RUN}/checkpoints/best.pt"
        assert cli.main(["gallery", "add", "people.db", weights, "--name", name, "query.jpg"]) == 0


def write_crops() -> None:
    """Create the list of crops and the travel times that the examples of `link` name."""
    Path("crops").mkdir(exist_ok=True)
    rows = ["path,pid,camid,track,time"]
    for camera in ("cam1", "cam2"):
        shutil.copy("query.jpg", f"crops/{camera}.jpg")
        rows.append(f"{camera}.jpg,1,{camera},1,{2 if camera == 'cam2' else 0}")
    Path("crops/crops.csv").write_text("\n".join(rows) + "\n")
    Path("travel.csv").write_text("from,to,min_seconds,max_seconds\ncam1,cam2,1,\n")


def prepare(name: str, words: list[str]) -> list[str]:
    """The arguments of an example that is scaled down."""
    if name == "born_again":
        return [*words, *SMALL]
    return [*words, *SCALED_DOWN.get(name, [])]


@pytest.mark.parametrize("name", leaf_commands())
def test_every_example_runs(name, workplace, monkeypatch, capsys):
    monkeypatch.chdir(workplace)
    small = "datasets/rendered --images --overwrite --train-ids 4 --test-ids 3 --distractors 1"
    monkeypatch.setattr(cli, "DEMO_DATA", [*small.split(), "--junk", "1", "--workers", "1"])
    monkeypatch.setattr(cli, "DEMO_RUN", Path("runs/demo"))
    monkeypatch.setattr(cli, "DEMO_PAGE", ["--count", "1", "--out", "runs/demo/ranked"])
    if name.startswith("gallery"):
        fill_gallery()
    if name == "link":
        write_crops()
    if name == "search":
        for source, out in (("photos", "features.npz"), ("query.jpg", "cows.npz")):
            weights = f"weights={RUN}/checkpoints/best.pt"
            assert cli.main(["embed", weights, source, "--out", out]) == 0
    found = examples(help_of(name, capsys), name)
    runnable = [words for words in found if not NEEDS.search(" ".join(words))]
    assert found, f"ember-reid {name} --help shows no example"
    if name in NEED_A_SERVER:
        return
    assert runnable or name in ("convert",)
    for words in runnable:
        if "onnx" in words:
            pytest.importorskip("onnxruntime")
        arguments = prepare(name, words)
        if name == "export":
            if "--images" not in arguments and "--int8" in arguments:
                arguments += ["--calibration-images", "4", "--max-drop", "1"]
        code = cli.main([*name.split(), *arguments])
        assert code == 0, f"{' '.join(words)}: {capsys.readouterr().err}"


def test_help_is_fast_and_imports_no_torch():
    program = (
        "import sys; from ember_reid.cli import main; main(['--help']); print(sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    usage, *_, modules = done.stdout.splitlines()
    assert usage == "usage: ember-reid COMMAND ..."
    assert "'torch'" not in modules and "'numpy'" not in modules


def test_version_and_module(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == "ember-reid 0.2.0\n"
    words = [sys.executable, "-m", "ember_reid", "train", "no_such_recipe"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("ember-reid: recipe no_such_recipe does not exist")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "there is no command 'trian'; known: train, test, resume, demo"),
        (["benchmark", "speed"], "there is no command 'speed'; known: "),
        (["resume", "nowhere"], "nowhere is not the folder of a run: it has no config.yml"),
        (["recipes", "no", "such"], "no recipe matches 'no such'"),
        (["report", "nowhere"], "nowhere is not a folder; give the OUTPUT_DIR of a run"),
    ],
)
def test_user_errors_are_one_line(words, message, capsys):
    assert cli.main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"ember-reid: {message}") and error.count("\n") == 1


def test_arguments_that_do_not_parse_are_one_line(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["report", "--no-such-option", "x"])
    assert stopped.value.code == 2
    expected = "ember-reid: unrecognized arguments: --no-such-option; see --help\n"
    assert capsys.readouterr().err == expected


def test_recipes_list_dataset_network_and_score(capsys):
    (recipe,) = find_recipes(["market1501/bot_R50-ibn"])
    assert (recipe.datasets, recipe.network) == ("market1501", "resnet50_ibn_a")
    assert (recipe.source, recipe.mAP, recipe.rank1) == ("published", 87.6, 94.9)
    assert cli.main(["recipes", "market1501/bot", "--min-map", "88"]) == 0
    titles, *rows = capsys.readouterr().out.splitlines()
    assert titles.split() == ["recipe", "dataset", "network", "mAP", "Rank-1", "score"]
    assert rows and all(float(row.split()[-3]) >= 88 for row in rows)


@pytest.mark.parametrize(
    ("name", "score"),
    [
        ("market1501/bot_R50", ("published", 86.1, 94.4)),
        ("quickstart/people", ("measured", 89.9, 97.3)),
        ("quickstart/teacher", ("", None, None)),
    ],
)
def test_scores_are_read_from_headers(name, score):
    assert read_score(read_header(name)) == score


@pytest.mark.parametrize(
    ("words", "overrides", "others"),
    [
        (["a", "SEED", "2", "b"], ["SEED", "2"], ["a", "b"]),
        (["SEED=2", "a=b.jpg"], ["SEED", "2"], ["a=b.jpg"]),
        (["weights=w.pt", "x.csv"], ["TEST.WEIGHT", "w.pt"], ["x.csv"]),
        (["a.jpg", "TEST.WEIGHT", "b.pt", "I.JPG"], ["TEST.WEIGHT", "b.pt"], ["a.jpg", "I.JPG"]),
        (["RUN", "runs/b", "DATASETS.ROOT", "/d"], ["DATASETS.ROOT", "/d"], ["RUN", "runs/b"]),
    ],
)
def test_configuration_words_are_separated_from_files(words, overrides, others):
    assert split_overrides(words) == (overrides, others)


def test_output_cannot_control_the_terminal():
    assert printable("a\x1b[31mb\u202e\x07\r\udcff") == "a\\x1b[31mb\\u202e\\x07\\r\\udcff"
    assert printable("Zoë 猫 \n\t") == "Zoë 猫 \n\t"
    assert describe(ValueError("x" * 5000)) == "x" * 1000 + " ..."


def test_the_explicit_list_of_packages_names_every_folder():
    listed = re.findall(r'^    "(ember_reid[\w.]*)",$', (ROOT / "pyproject.toml").read_text(), re.M)
    folders = {"ember_reid", "ember_reid.configs"}
    for top in "config data engine evaluate layers modeling solver tools".split():
        for path in (ROOT / top).rglob("__init__.py"):
            folders.add(".".join(["ember_reid", *path.parent.relative_to(ROOT).parts]))
    assert sorted(listed) == sorted(folders)


def test_every_tool_is_a_package_that_runs_as_a_module():
    tools = [p for p in (ROOT / "tools").iterdir() if p.is_dir() and (p / "__init__.py").exists()]
    commands = [path for path in tools if path.name != "common"]
    assert len(commands) >= 13
    assert [path.name for path in commands if not (path / "__main__.py").is_file()] == []


def test_a_group_without_arguments_shows_its_commands(capsys):
    group = CommandGroup("group", "Text.", {"one": ("m:f", "summary")})
    assert group.main([], prog="prog") == 0
    assert "  one  summary" in capsys.readouterr().out


def test_an_argument_with_a_line_feed_costs_one_line(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["gallery", "list", "a.db", "b\nc"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "ember-reid: unrecognized arguments: b c; see --help\n"
