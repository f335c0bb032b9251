"""Metadata, dependencies, Dockerfile and continuous integration agree with the repository."""

import ast
import re
import shlex
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import ember_reid

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
FOLDERS = PROJECT["tool"]["setuptools"]["package-dir"]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def required(requirements: list[str]) -> set[str]:
    return {normalized(Requirement(requirement).name) for requirement in requirements}


def imported_distributions(folders: list[str]) -> list[set[str]]:
    """What is imported anywhere in `folders`, or in a file that is named.

    Returns:
        For each import the distributions that contain the module: one, or several that share it.
    """
    providers = packages_distributions()
    found: list[set[str]] = []
    for folder in folders:
        path = ROOT / folder
        for source in [path] if path.is_file() else path.rglob("*.py"):
            for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    modules = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom) and node.module:
                    modules = [node.module]
                else:
                    continue
                for module in modules:
                    first = module.split(".")[0]
                    if first in providers:
                        found.append({normalized(name) for name in providers[first]})
    return found


def test_every_package_of_the_repository_is_listed():
    expected = {"ember_reid", "ember_reid.configs"}
    for package, folder in FOLDERS.items():
        for path in (ROOT / folder).rglob("__init__.py"):
            inner = path.parent.relative_to(ROOT / folder).parts
            expected.add(".".join([package, *inner]))
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == expected


def test_runtime_dependencies_are_those_that_the_package_imports():
    imported = imported_distributions([*FOLDERS.values(), "ember_reid", "main.py"])
    declared = required(PROJECT["project"]["dependencies"])
    optional = set().union(*(required(EXTRAS[name]) for name in EXTRAS if name != "dev"))
    allowed = declared | optional | {"ember-reid"}
    undeclared = [names for names in imported if not names & allowed]
    assert not undeclared, f"imported, but no dependency: {undeclared}"
    # torch.utils.tensorboard imports tensorboard.
    assert declared - set().union(*imported) <= {"tensorboard"}


def test_the_dev_extra_contains_no_optional_integration():
    # timm is not in this list, because the core tests build its networks.
    integrations = set().union(
        *(required(EXTRAS[name]) for name in ("search", "vis", "pml", "wandb", "mlflow", "pandas"))
    )
    assert not integrations & required(EXTRAS["dev"])
    assert not required(EXTRAS["dev"]) & required(PROJECT["project"]["dependencies"])


def test_every_dependency_has_a_tested_version():
    pinned = required(re.findall(r"^[A-Za-z][^#\n]*", read("constraints.txt"), re.MULTILINE))
    names = required(PROJECT["project"]["dependencies"]).union(
        *(required(requirements) for requirements in EXTRAS.values())
    )
    assert not names - pinned - {"ember-reid"}


def test_versions_agree():
    version = ember_reid.__version__
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"]["attr"] == "ember_reid.__version__"
    assert yaml.safe_load(read("CITATION.cff"))["version"] == version
    assert re.findall(r"^## (\S+)", read("CHANGELOG.md"), re.MULTILINE)[0] == version


def test_the_license_is_named_the_same_everywhere():
    assert "Apache License\n                           Version 2.0" in read("LICENSE")
    assert PROJECT["project"]["license"] == "Apache-2.0"
    assert yaml.safe_load(read("CITATION.cff"))["license"] == "Apache-2.0"


def test_continuous_integration_runs_make_test_on_every_supported_python():
    job = yaml.safe_load(read(".github/workflows/test.yml"))["jobs"]["test"]
    pattern = re.compile(r"Programming Language :: Python :: (3\.\d+)")
    classifiers = [pattern.fullmatch(text) for text in PROJECT["project"]["classifiers"]]
    assert job["strategy"]["matrix"]["python"] == [match[1] for match in classifiers if match]
    assert job["steps"][-1]["run"].startswith("make test ")


def test_pre_commit_hooks_run_commands_that_exist():
    hooks = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"][0]["hooks"]
    assert [hook["id"] for hook in hooks] == ["ruff", "ruff-format", "mypy"]
    assert hooks[-1]["entry"] == "make typecheck"
    for hook in hooks[:-1]:
        program, *words = shlex.split(hook["entry"])
        assert program == ".venv/bin/python"
        result = subprocess.run([sys.executable, *words, "setup.py"], cwd=ROOT)
        assert result.returncode == 0


# ---------------------------------------------------------------------------------------------
# Dockerfile


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile: (name, arguments), continued lines joined."""
    text = re.sub(r"^#.*\n", "", read("Dockerfile"), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(words[0], words[1]) for line in lines if (words := line.split(None, 1))]


def copied() -> set[str]:
    """What the Dockerfile copies from the repository."""
    sources: set[str] = set()
    for name, arguments in instructions():
        if name == "COPY" and not arguments.startswith("--from"):
            sources |= set(arguments.split()[:-1])
    return sources


def test_the_image_contains_everything_that_a_wheel_is_built_from():
    missing = [name for name in copied() if not (ROOT / name).exists()]
    assert not missing
    tracked = {*FOLDERS.values(), "ember_reid", "main.py", "setup.py", "pyproject.toml"}
    assert tracked <= copied()
    assert {PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]} <= copied()
    ignored = read(".dockerignore").split()
    assert not copied() & set(ignored)


def test_commands_of_the_image_are_valid_shell():
    for name, arguments in instructions():
        if name == "RUN":
            subprocess.run(["sh", "-n", "-c", arguments], check=True)
    known = {"ARG", "FROM", "RUN", "WORKDIR", "COPY", "USER", "CMD"}
    assert {name for name, _ in instructions()} <= known


@pytest.mark.parametrize("word", ["install", "wheel"])
def test_pip_accepts_the_options_of_the_image(word):
    from pip._internal.commands import create_command

    commands = [
        part.strip()
        for name, arguments in instructions()
        if name == "RUN"
        for part in re.split(r"&&|;", arguments)
        if f"-m pip {word}" in part
    ]
    assert commands
    for command in commands:
        words = shlex.split(command.split(f"-m pip {word}")[1])
        options, names = create_command(word).parse_args(words)
        assert names
        if word == "install":
            assert options.constraints == ["/tmp/constraints.txt"]


def test_each_device_of_the_image_has_its_own_torch():
    text = read("Dockerfile")
    assert "ARG DEVICE=cpu" in text
    assert re.search(
        r'if \[ "\$DEVICE" = cpu \].*?whl/cpu torch torchvision; +fi', text.replace("\\\n", "")
    )
