"""`python -m tools.check_gpu`, rehearsed on the CPU, and what it does when a part fails."""

import json
import os
import subprocess
import sys
import time

import pytest
import torch
from ember_reid.tools.check_gpu import main, parts
from ember_reid.tools.check_gpu.parts import PARTS, run_part
from ember_reid.tools.check_gpu.results import Result, load, save, write_summary


def test_every_part_passes_in_a_rehearsal(tmp_path, capsys):
    assert main(["--out", str(tmp_path), "--rehearse"]) == 0
    out = capsys.readouterr().out
    assert out.count("FAIL") == 0 and "\nPASS: all checks\n" in out
    summary = json.loads((tmp_path / "check.json").read_text())
    assert summary["passed"] and [part["name"] for part in summary["parts"]] == list(PARTS)
    assert all(part["checks"] or part["values"] for part in summary["parts"])
    page = (tmp_path / "index.html").read_text()
    assert all(part.title in page for part in PARTS.values()) and "<script" not in page
    assert page.count("<td>PASS</td>") == out.count("PASS  ") > 20


def test_without_a_gpu_it_is_one_line_and_code_2(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["--out", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert err.startswith("check_gpu: no GPU to check: torch finds no CUDA device")
    assert err.count("\n") == 1 and not (tmp_path / "out").exists()


def test_unknown_parts_are_one_line(tmp_path, capsys):
    assert main(["--out", str(tmp_path), "--rehearse", "--parts", "machine,speeed"]) == 2
    assert "--parts names 'speeed', choose from machine, recipes," in capsys.readouterr().err


def fail(name, folder, result, rehearse):
    result.record("before", 1)
    raise RuntimeError("no such kernel")


def hang(name, folder, result, rehearse):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    (folder.parent / "child").write_text(str(child.pid))
    time.sleep(60)


def die(name, folder, result, rehearse):
    os._exit(3)


@pytest.mark.parametrize(
    "check, error",
    [
        (fail, "RuntimeError: no such kernel"),
        (hang, "stopped after 2 s"),
        (die, "its process ended with code 3"),
    ],
)
def test_a_part_that_fails_is_recorded_and_the_next_one_runs(
    check, error, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(parts, "_check", check)
    monkeypatch.setattr(parts.tempfile, "tempdir", str(tmp_path))
    limit = 2 if check is hang else 60
    limited = {name: parts.Part(PARTS[name].title, limit) for name in ("machine", "speed")}
    monkeypatch.setattr("ember_reid.tools.check_gpu.command.PARTS", limited)
    words = ["--out", str(tmp_path / "out"), "--rehearse", "--parts"]
    assert main([*words, "machine" if check is hang else "machine,speed"]) == 1
    out = capsys.readouterr().out
    assert out.count(f"FAIL  {error}") == (1 if check is hang else 2)
    result = load(tmp_path / "out" / "machine.json")
    assert result.error == error and not result.passed
    assert result.values == ({"before": "1"} if check is fail else {})
    assert error in (tmp_path / "out" / "index.html").read_text()
    if check is hang:
        child = int((tmp_path / "child").read_text())
        time.sleep(0.2)
        status = subprocess.run(["ps", "-o", "stat=", "-p", str(child)], capture_output=True)
        assert status.stdout.strip()[:1] in (b"", b"Z")


def test_targets_and_limits():
    result = Result("speed")
    result.at_least("batch 64", 6499.6, 6500, unit="images/s")
    result.at_least("batch 256", 7500.0, 7500, unit="images/s")
    result.at_most("difference", 2e-4, 1e-4)
    result.at_most("not a number", float("nan"), 1e-4)
    assert [str(check) for check in result.checks] == [
        "FAIL  batch 64: 6,500 images/s, target 6,500",
        "PASS  batch 256: 7,500 images/s, target 7,500",
        "FAIL  difference: 2.00e-04, limit 1e-04",
        "FAIL  not a number: nan, limit 1e-04",
    ]
    assert not result.passed


def test_a_summary_names_the_parts_that_are_missing(tmp_path):
    result = Result("machine", seconds=1.5, values={"GPU": "<b>none</b>"})
    save(tmp_path / "machine.json", result)
    assert load(tmp_path / "machine.json") == result
    write_summary(tmp_path, [result], {"machine": "Machine", "speed": "Speed"})
    page = (tmp_path / "index.html").read_text()
    assert "Not run: Speed." in page and "&lt;b&gt;none&lt;/b&gt;" in page
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "check.json",
        "index.html",
        "machine.json",
    ]


def test_a_part_needs_no_dataset_and_leaves_only_its_results(tmp_path, monkeypatch):
    monkeypatch.setattr(parts.tempfile, "tempdir", str(tmp_path))
    result = run_part("machine", tmp_path, rehearse=True, limit=60)
    assert result.passed and result.values["GPU"] == "none"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["machine.json", "machine.log"]
