"""The wheel and the source package work in an empty environment, next to modules with our names.

The environment sees the heavy dependencies of the environment of the tests, but not the checkout.
One wheel is built from the checkout with its kernels. The other is built from the source package
without a compiler, so it uses numpy. Both must give the same scores.
"""

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOREIGN = ("config.py", "layers.py", "data/__init__.py", "tools/__init__.py")
SMALL = {
    "INPUT.SIZE_TRAIN": "(32,16)",
    "INPUT.SIZE_TEST": "(32,16)",
    "SOLVER.IMS_PER_BATCH": "8",
    "SOLVER.WARMUP_EPOCHS": "0",
    "SOLVER.FP16": "False",
    "DATALOADER.NUM_INSTANCES": "2",
    "DATALOADER.NUM_WORKERS": "0",
    "TEST.RE_RANK.K1": "4",
    "TEST.RE_RANK.K2": "2",
    "LOG.TO": "()",
    "LOG.PROGRESS": "False",
    "DEVICE": "cpu",
    "NUM_THREADS": "1",
}
# What a user does, as one program: importing torch takes longer than all the steps.
USE = """
import importlib
import json
import sys

import ember_reid
from ember_reid.evaluate import rank_metrics


def use(module, *words):
    code = importlib.import_module(f"ember_reid.{module}").main([*words])
    assert code == 0, f"{module} {words} exited with {code}"


small = json.loads(sys.argv[1])
use("tools.quickstart_data", "people", "--images", *"--train-ids 4 --test-ids 3".split(),
    *"--distractors 2 --junk 1 --frames 2 --workers 1".split())
recipe = "quickstart/people"
keys = [*small, "DATASETS.NAMES", "quickstart:people/market1501", "OUTPUT_DIR", "runs/mine"]
use("main", "-c", recipe, *keys, "SOLVER.MAX_EPOCHS", "1")
use("main", "-c", recipe, "--resume", *keys, "SOLVER.MAX_EPOCHS", "2")
best = "runs/mine/checkpoints/last.pt"
use("main", "-t", "TEST.WEIGHT", best, "OUTPUT_DIR", "runs/tested", "DEVICE", "cpu")
use("tools.extract", "TEST.WEIGHT", best, "people/market1501/query", "--out", "features.npz")
use("tools.export", best, "--to", "torchscript", "--out", "person.ts")
try:
    rank_metrics([[0.0, 1.0]], [1], [1, 1], [0], [1, 1], backend="cython")
    kernels = True
except (ImportError, ValueError, RuntimeError):
    kernels = False
print(json.dumps({"file": ember_reid.__file__, "kernels": kernels}))
"""


def run(*words: object, cwd: Path, **environment: str) -> str:
    """Run a command that must succeed; returns what it printed."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env={**clean, **environment},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, f"{words}\n{result.stdout[-2000:]}\n{result.stderr[-4000:]}"
    return result.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A copy of the files of the checkout that are not ignored."""
    folder = tmp_path_factory.mktemp("source")
    listed = run("git", "ls-files", "-z", "-co", "--exclude-standard", cwd=ROOT)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    return folder


def build_wheel(source: Path, out: Path, **environment: str) -> Path:
    options = "--no-deps --no-build-isolation --no-index --wheel-dir".split()
    run(sys.executable, "-m", "pip", "wheel", *options, out, ".", cwd=source, **environment)
    (wheel,) = out.glob("ember_reid-*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory) -> Path:
    """The wheel that a user with a compiler builds from the checkout."""
    return build_wheel(source, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(source, tmp_path_factory) -> Path:
    """The source package."""
    out = tmp_path_factory.mktemp("sdist")
    build = f"from setuptools import build_meta; build_meta.build_sdist({str(out)!r})"
    run(sys.executable, "-c", build, cwd=source)
    (archive,) = out.glob("ember_reid-*.tar.gz")
    return archive


@pytest.fixture(scope="module")
def pure_wheel(sdist, tmp_path_factory) -> Path:
    """The wheel that a user without a compiler builds from the source package."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (unpacked,) = folder.iterdir()
    return build_wheel(unpacked, tmp_path_factory.mktemp("pure"), CC="false", CXX="false")


def install(folder: Path, *what: object) -> Path:
    """Create an environment that sees our dependencies, and install `what`; returns its Python."""
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    python = folder / "bin" / "python"
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(run(python, "-c", code, cwd=folder).strip())
    # Python reads no .pth files of the folders that a .pth file adds, so the checkout stays hidden.
    added = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    (packages / "dependencies.pth").write_text("\n".join(added))
    options = "--no-deps --no-index --no-build-isolation --ignore-installed --quiet".split()
    pip = (sys.executable, "-m", "pip", "--python", python, "install")
    run(*pip, *options, *what, cwd=folder)
    return python


def use(python: Path, folder: Path) -> dict:
    """Render, train, resume, test, embed and export in `folder`, which has modules of our names."""
    folder.mkdir()
    for name in FOREIGN:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("raise AssertionError(f'{__name__} is not the package')\n")
    (folder / "use.py").write_text(USE)
    words = [word for item in SMALL.items() for word in item]
    printed = run(python, "use.py", json.dumps(words), cwd=folder, OMP_NUM_THREADS="1")
    found = json.loads(printed.splitlines()[-1])
    assert (folder / "features.npz").is_file() and (folder / "person.ts").is_file()
    for name in ("mine", "tested"):
        text = (folder / "runs" / name / "results.json").read_text()
        found[name] = next(iter(json.loads(text).values()))
    return found


@pytest.fixture(scope="module")
def used(wheel, tmp_path_factory) -> dict:
    """What using the wheel found, and the Python of its environment."""
    folder = tmp_path_factory.mktemp("installed")
    python = install(folder / "venv", wheel)
    return {"python": python, **use(python, folder / "project")}


def test_the_wheel_contains_what_it_needs_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"ember_reid"}
    assert not [name for name in names if name.endswith((".pyx", ".c", ".h", ".pxi"))]
    recipes = {path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.yml")}
    assert recipes <= {name.removeprefix("ember_reid/") for name in names}
    kernels = [name for name in names if name.endswith(".so")]
    assert len(kernels) == 3
    assert "ember_reid/py.typed" in names


def test_files_that_are_not_python_are_in_the_wheel(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    suffixes = (".html", ".css", ".js", ".jinja", ".json", ".txt")
    for folder in ("config", "data", "engine", "evaluate", "layers", "modeling", "tools"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in suffixes and "__pycache__" not in path.parts:
                assert f"ember_reid/{path.relative_to(ROOT).as_posix()}" in names


def test_the_wheel_works_next_to_modules_of_the_same_names(used):
    assert Path(used["file"]).is_relative_to(used["python"].parents[1])
    assert used["kernels"]
    assert used["tested"]["mAP"] == pytest.approx(used["mine"]["mAP"], abs=1e-6)


def test_the_source_package_without_a_compiler_gives_the_same_scores(used, pure_wheel, tmp_path):
    assert not [name for name in zipfile.ZipFile(pure_wheel).namelist() if name.endswith(".so")]
    found = use(install(tmp_path / "venv", pure_wheel), tmp_path / "project")
    assert Path(found["file"]).is_relative_to(tmp_path / "venv")
    assert not found["kernels"]
    assert found["mine"] == used["mine"]
    assert found["tested"] == used["tested"]


def test_an_editable_installation_uses_the_checkout(source, tmp_path, monkeypatch):
    monkeypatch.setenv("CC", "false")
    python = install(tmp_path / "venv", "-e", source)
    # Importing main would import torch, too.
    code = "from importlib.util import find_spec; print(find_spec('ember_reid.main').origin)"
    assert run(python, "-c", code, cwd=tmp_path).strip() == str(source / "main.py")
