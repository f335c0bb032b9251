"""What a run says about its env_info."""

import json
import platform
import subprocess

import pytest
import torch
from ember_reid.engine import environment
from ember_reid.engine.checkpoint import load_checkpoint
from ember_reid.engine.environment import (
    collect_env_info,
    describe_commit,
    describe_processor,
    record_start,
)

from ember_reid import __version__


def git(folder, *words):
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "-C", str(folder), *who, *words], check=True, capture_output=True)


def test_a_commit_and_whether_files_differ_from_it(tmp_path):
    assert describe_commit(tmp_path) == "unknown: not a git checkout"
    git(tmp_path, "init")
    # No commit yet.
    assert describe_commit(tmp_path) == "unknown: not a git checkout"
    (tmp_path / "a").write_text("1")
    (tmp_path / "inside").mkdir()
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-m", "one")
    clean = describe_commit(tmp_path)
    assert len(clean) == 12 and int(clean, 16) >= 0
    (tmp_path / "b").write_text("untracked files change nothing")
    assert describe_commit(tmp_path) == clean
    (tmp_path / "a").write_text("2")
    assert describe_commit(tmp_path) == f"{clean} + changes"
    # The repository belongs to another project.
    assert describe_commit(tmp_path / "inside") == "unknown: not a git checkout"


def test_without_git_the_commit_is_unknown(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert describe_commit() == "unknown: git is not installed"


def test_the_processor_is_named_somehow(monkeypatch, tmp_path):
    monkeypatch.setattr(environment, "PROCESSORS", tmp_path / "cpuinfo")
    assert describe_processor()
    (tmp_path / "cpuinfo").write_text(
        "processor\t: 0\nmodel name\t: Abacus 9000  \nmodel name\t: other\n"
    )
    assert describe_processor() == "Abacus 9000"


def test_versions_and_machine_without_names_of_host_or_user():
    env_info = collect_env_info(torch.device("cpu"))
    assert (
        env_info["Python"] == platform.python_version()
        and env_info["torch"] == torch.__version__.split("+")[0]
    )
    assert env_info["ember-reid"] == __version__ and env_info["GPU"] == "none"
    assert env_info["processes x threads"] == f"1 x {torch.get_num_threads()}"
    assert all(isinstance(value, str) for value in env_info.values())
    assert str(environment.ROOT) not in json.dumps(env_info)


@pytest.mark.parametrize("before", ["", "[{", '{"a": 1}', None])
def test_starts_are_listed_and_damaged_files_are_replaced(tmp_path, before):
    path = tmp_path / "environment.json"
    if before is not None:
        path.write_text(before)
    record_start(path, {"torch": "1"}, iteration=0)
    record_start(path, {"torch": "2"}, iteration=7)
    starts = json.loads(path.read_text())
    assert [(start["torch"], start["iteration"]) for start in starts] == [("1", 0), ("2", 7)]
    assert starts[0]["time"].endswith("+00:00") and [p.name for p in tmp_path.iterdir()] == [
        path.name
    ]


def test_a_run_and_its_checkpoint_carry_it(tiny_run):
    (start,) = json.loads((tiny_run / "environment.json").read_text())
    env_info = {key: value for key, value in start.items() if key not in ("time", "iteration")}
    assert start["iteration"] == 0 and env_info["torch"] == torch.__version__.split("+")[0]
    assert load_checkpoint(tiny_run / "checkpoints" / "best.pt")["environment"] == env_info
    assert f"environment: ember-reid {__version__}, commit " in (tiny_run / "log.txt").read_text()
