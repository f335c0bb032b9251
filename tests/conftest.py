"""Fixtures of all tests: a tiny dataset and recipe, and runs of main.py in this process."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.helpers import tiny

# A process that has initialized CUDA cannot fork. This asks the driver's library instead.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")

NUM_THREADS = torch.get_num_threads()
# Files whose tests fork come first: a process in which autograd has started threads (for example
# on the "meta" device) cannot fork. Then the longest: one of two workers would wait for the other
# if it started one of these last.
FIRST = (
    "test_processes.py",
    "test_cluster.py",
    "test_check_gpu.py",
    "test_sockets.py",
    "test_kills.py",
    "test_signals.py",
    "test_memory_runs.py",
    "test_compilation.py",
    "test_docs_commands.py",
    "test_install.py",
    "test_readme.py",
    "test_notebook.py",
    "test_quickstart_data.py",
    "test_deploy.py",
    "test_explain.py",
)


@pytest.fixture(scope="session")
def tiny_market(tmp_path_factory) -> Path:
    """A Market-1501 tree of 32x16 images: see tests/helpers/tiny.py."""
    return tiny.write_market(tmp_path_factory.mktemp("tiny") / "market1501")


@pytest.fixture(scope="session")
def tiny_recipe(tmp_path_factory, tiny_market) -> Path:
    """A recipe file of two epochs on `tiny_market`."""
    return tiny.write_recipe(tmp_path_factory.mktemp("recipe") / "tiny.yml", tiny_market)


@pytest.fixture(scope="session")
def train(tiny_recipe) -> Callable[..., Path]:
    """A function train(folder, *words) that runs the tiny recipe and returns its output folder.

    The test fails if the run does.
    """
    from ember_reid import main

    def run(folder: Path, *words: str) -> Path:
        code = main.main(["-c", str(tiny_recipe), *words, "OUTPUT_DIR", str(folder)])
        assert code == 0
        return folder

    return run


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory, train) -> Path:
    """The output folder of a complete run of the tiny recipe. Tests must not write into it."""
    return train(tmp_path_factory.mktemp("run") / "tiny")


@pytest.fixture(autouse=True)
def restore_globals():
    """Undo what main.py configures for its process: logging and torch."""
    yield
    root = logging.getLogger("ember")
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    root.propagate = True
    root.setLevel(logging.NOTSET)
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(NUM_THREADS)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the files in `FIRST` first; skip tests of optional integrations without `-m extras`."""
    order = {name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))
    if "extras" not in config.option.markexpr:
        skip = pytest.mark.skip(reason="an optional integration: run `make test-extras`")
        for item in items:
            if "extras" in item.keywords:
                item.add_marker(skip)
