"""Experiment trackers, with fake libraries: what is recorded, and that no failure ends a run."""

import json
import sys
import threading
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from ember_reid.config.schema import CHECKS
from ember_reid.engine.handlers import background, trackers
from ember_reid.engine.handlers.trackers import TRACKERS
from ember_reid.engine.handlers.tracking import Tracker

from ember_reid import main


class FakeMLflow(ModuleType):
    """The functions of mlflow that are used; records each call as (name, arguments)."""

    def __init__(self):
        super().__init__("mlflow")
        self.calls = []

    def start_run(self, run_id=None, run_name=None, log_system_metrics=None):
        self.calls.append(("start_run", run_id, run_name))
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id or "run-7"))

    def active_run(self):
        return object()

    def end_run(self):
        self.calls.append(("end_run",))

    def set_experiment(self, name):
        self.calls.append(("set_experiment", name))

    def log_params(self, values):
        self.calls.append(("log_params", values))

    def log_metrics(self, values, step):
        self.calls.append(("log_metrics", step, values))

    def log_image(self, image, file):
        self.calls.append(("log_image", file, image.shape[2], str(image.dtype)))

    def log_artifact(self, path, folder):
        self.calls.append(("log_artifact", Path(path).name, folder))

    def of(self, name):
        return [call[1:] for call in self.calls if call[0] == name]


@pytest.fixture
def mlflow(monkeypatch):
    fake = FakeMLflow()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    return fake


def test_every_choice_has_a_tracker():
    assert CHECKS["LOG.TO"].values == tuple(TRACKERS)


def test_a_run_and_its_continuation_are_one_run_of_the_tracker(mlflow, tiny_run, train, tmp_path):
    folder = tmp_path / "run"
    words = ["LOG.TO", "mlflow", "LOG.PROJECT", "people"]
    train(folder, *words, "SOLVER.MAX_EPOCHS", "1")
    train(folder, *words, "--resume")
    assert mlflow.of("set_experiment") == [("people",)] * 2
    assert mlflow.of("start_run") == [(None, "run"), ("run-7", "run")]
    assert (folder / "trackers" / "mlflow.id").read_text() == "run-7\n"
    parameters = {key: value for (part,) in mlflow.of("log_params") for key, value in part.items()}
    assert parameters["SOLVER.IMS_PER_BATCH"] == "8" and parameters["LOG.PROJECT"] == "people"
    assert all(len(part) <= 100 for (part,) in mlflow.of("log_params"))
    untracked = [json.loads(line) for line in (tiny_run / "metrics.jsonl").read_text().splitlines()]
    losses = {
        step: values["train/loss"]
        for step, values in mlflow.of("log_metrics")
        if "train/loss" in values
    }
    assert losses == {
        entry["iteration"]: entry["values"]["loss"]
        for entry in untracked
        if entry["what"] == "train"
    }
    assert any("test/market1501/mAP" in values for _, values in mlflow.of("log_metrics"))
    assert ("ranked/market1501/00000004.png", 3, "uint8") in mlflow.of("log_image")
    assert mlflow.of("log_artifact")[-1] == ("best.pt", "checkpoints")
    assert mlflow.calls[-1] == ("end_run",)


class Broken(Tracker):
    """A tracker that fails, hangs or is slow at one of its calls; class attributes say where."""

    name, package = "wandb", "json"
    moment, kind = "", ""
    gate = threading.Event()

    def _act(self, moment):
        if moment == self.moment and self.kind == "error":
            raise ConnectionError("the server is gone")
        if moment == self.moment and self.kind == "hang":
            self.gate.wait(30)
        if self.kind == "slow":
            time.sleep(0.05)

    def _start(self, known):
        self._act("start")
        return "id"

    def write(self, source, epoch, iteration, values):
        self._act("write")

    def write_image(self, title, iteration, image):
        self._act("image")

    def _upload(self, checkpoint):
        self._act("upload")

    def _finish(self):
        self._act("finish")


LOST = "wandb does not respond; its last entries are lost"
FAILED = "wandb failed and is no longer used; the training continues: the server is gone"


@pytest.mark.parametrize(
    ("kind", "moment", "warnings"),
    [
        ("error", "start", [FAILED]),
        ("error", "image", [FAILED]),
        ("error", "upload", [FAILED]),
        ("hang", "start", [LOST]),
        ("hang", "finish", [LOST]),
        ("slow", "", []),
    ],
)
def test_a_broken_tracker_gives_one_warning_and_changes_nothing(
    kind, moment, warnings, tiny_run, train, tmp_path, monkeypatch
):
    gate = threading.Event()
    tracker = type("Case", (Broken,), {"kind": kind, "moment": moment, "gate": gate})
    monkeypatch.setitem(TRACKERS, "wandb", tracker)
    monkeypatch.setattr(trackers, "UPLOAD_TIMEOUT", 1.0)
    defaults = background.BackgroundWriter.__init__.__kwdefaults__
    monkeypatch.setitem(defaults, "close_timeout", 1.0)
    records = []
    monkeypatch.setattr(
        background.logger, "warning", lambda text, *args: records.append(text % args)
    )
    folder = train(tmp_path / "run", "LOG.TO", "wandb")
    gate.set()
    assert records == warnings
    assert (folder / "results.json").read_text() == (tiny_run / "results.json").read_text()


def test_a_tracker_that_is_not_installed_gives_one_warning(
    tiny_recipe, tmp_path, monkeypatch, capfd
):
    monkeypatch.setitem(sys.modules, "clearml", None)
    words = ["LOG.TO", "clearml", "SOLVER.MAX_EPOCHS", "1", "OUTPUT_DIR", str(tmp_path / "x")]
    assert main.main(["-c", str(tiny_recipe), *words]) == 0
    log = (tmp_path / "x" / "log.txt").read_text()
    assert log.count("WARNING") == 1
    assert "it is not installed: pip install 'ember-reid[clearml]'" in log


def test_unknown_trackers_are_an_error_of_the_configuration(tiny_recipe, tmp_path, capsys):
    words = ["LOG.TO", "('wandb', 'wanda')", "OUTPUT_DIR", str(tmp_path / "x")]
    assert main.main(["-c", str(tiny_recipe), *words]) == 2
    error = capsys.readouterr().err
    assert "allowed: a list of tensorboard, visdom, wandb, mlflow" in error
    assert error.count("\n") == 1
