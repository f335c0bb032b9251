"""Profiles of Hypothesis, and inputs that the examples damage.

`make test` runs the profile "ci": few examples, always the same. `make test-hostile` runs "long".
"""

import os
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from tests.hostile import harness

COMMON = {
    "deadline": None,
    "database": None,
    "suppress_health_check": list(HealthCheck),
    "print_blob": True,
}
settings.register_profile("ci", max_examples=10, derandomize=True, **COMMON)
settings.register_profile("long", max_examples=300, derandomize=False, **COMMON)
settings.load_profile(os.environ.get("HOSTILE_PROFILE", "ci"))


@pytest.fixture(scope="session")
def hostile_folder(tmp_path_factory) -> Path:
    """The current folder of all examples of this session."""
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(autouse=True)
def in_hostile_folder(hostile_folder, monkeypatch):
    """Relative paths in the examples lead into a folder of the test session."""
    monkeypatch.chdir(hostile_folder)


@pytest.fixture
def fresh(hostile_folder):
    """fresh(name) -> a folder, emptied of what the last example left."""

    def create(name: str) -> Path:
        folder = hostile_folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    return create


@pytest.fixture(scope="session")
def checkpoint(tiny_run) -> dict:
    """The content of `last.pt` of a tiny run."""
    return torch.load(tiny_run / "checkpoints" / "last.pt", weights_only=True)


@pytest.fixture(scope="session", autouse=True)
def report_counts():
    """Print the number of examples by kind and exit code."""
    yield
    for (kind, code), count in sorted(harness.COUNTS.items()):
        print(f"hostile {kind}: {count} examples ended with {code}")
