"""`last.pt`, and the one before it when it cannot be read."""

import json
import os
import shutil

import pytest
import torch
from ember_reid.engine.checkpoint import load_checkpoint, load_last, save_checkpoint

from ember_reid import main


def no_links(*_):
    raise OSError("this file system has no hard links")


@pytest.mark.parametrize("link", [os.link, no_links])
def test_the_checkpoint_before_stays(tmp_path, monkeypatch, link):
    monkeypatch.setattr(os, "link", link)
    last, previous = tmp_path / "last.pt", tmp_path / "previous.pt"
    for value in (1, 2, 3):
        save_checkpoint(last, {"value": value}, previous=previous)
        assert load_last(tmp_path)[1]["value"] == value
        assert previous.exists() == (value > 1)
    assert load_checkpoint(previous)["value"] == 2
    assert sorted(file.name for file in tmp_path.iterdir()) == ["last.pt", "previous.pt"]


@pytest.mark.parametrize("when", ["replace", "link"])
def test_a_checkpoint_exists_at_every_moment(tmp_path, monkeypatch, when):
    last, previous = tmp_path / "last.pt", tmp_path / "previous.pt"
    save_checkpoint(last, {"value": 1}, previous=previous)
    save_checkpoint(last, {"value": 2}, previous=previous)
    act = getattr(os, when)

    def look_and_act(*paths):
        assert load_checkpoint(last)["value"] == 2 and load_checkpoint(previous)["value"] in (1, 2)
        act(*paths)

    monkeypatch.setattr(os, when, look_and_act)
    save_checkpoint(last, {"value": 3}, previous=previous)
    assert load_checkpoint(last)["value"] == 3


def damage(path, how) -> None:
    content = path.read_bytes()
    path.write_bytes(
        {"truncated": content[: len(content) // 2], "empty": b"", "zeros": bytes(2000)}[how]
    )


@pytest.mark.parametrize("how", ["truncated", "empty", "zeros"])
def test_a_damaged_checkpoint_costs_one_epoch_and_no_bit(
    how, tiny_recipe, tiny_run, tmp_path, capfd
):
    folder = shutil.copytree(tiny_run, tmp_path / "run")
    damage(folder / "checkpoints" / "last.pt", how)
    assert main.main(["-c", str(tiny_recipe), "--resume", "OUTPUT_DIR", str(folder)]) == 0
    out = capfd.readouterr().out
    assert out.count("continuing from") == 1 and "previous.pt, one checkpoint earlier" in out
    assert "resumed after epoch 1, iteration 4" in out
    ours, theirs = (load_checkpoint(run / "checkpoints" / "last.pt") for run in (folder, tiny_run))
    assert all(torch.equal(ours["model"][name], value) for name, value in theirs["model"].items())
    assert (folder / "results.json").read_text() == (tiny_run / "results.json").read_text()
    places = [
        json.loads(line)["iteration"]
        for line in (folder / "metrics.jsonl").read_text().splitlines()
    ]
    # The last losses and the last scores, each once.
    assert places == sorted(places) and places.count(8) == 2
