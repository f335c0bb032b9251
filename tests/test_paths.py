"""How many of our files a training batch and an evaluation of the quickstart pass through."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest
from ignite.engine import Engine, Events

from ember_reid import main

ROOT = Path(__file__).resolve().parents[1]
# One of them contains the convolutions of SOLVER.CPU_CONVOLUTIONS.
MAX_TRAINING_FILES = 15
MAX_EVALUATION_FILES = 12


class VisitedFiles:
    """The files of the package whose functions are called while `start` to `stop` are active."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def attach(self, trainer: Engine) -> None:
        """Record the second iteration, from fetching the batch to the last handler."""
        trainer.add_event_handler(Events.GET_BATCH_STARTED(once=2), self.start)
        trainer.add_event_handler(Events.GET_BATCH_STARTED(once=3), self.stop)

    def start(self) -> None:
        sys.setprofile(self._record)

    def stop(self) -> None:
        sys.setprofile(None)

    def _record(self, frame: FrameType, event: str, arg: object) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(ROOT):
            name = path.relative_to(ROOT).as_posix()
            if not name.startswith(("tests/", ".venv/")):
                self.names.add(name)


@contextmanager
def visited_files() -> Iterator[VisitedFiles]:
    visited = VisitedFiles()
    try:
        yield visited
    finally:
        visited.stop()


@pytest.fixture(scope="module")
def words(tiny_market) -> list[str]:
    """The quickstart on tiny images: one epoch of four batches."""
    return [
        *("-c", "quickstart", f"data=market1501:{tiny_market}", "epochs=1", "batch=8"),
        *("INPUT.SIZE_TRAIN", "(32, 16)", "INPUT.SIZE_TEST", "(32, 16)", "DEVICE", "cpu"),
        *("DATALOADER.NUM_INSTANCES", "2", "SOLVER.WARMUP_EPOCHS", "0", "TEST.RE_RANKING", "False"),
        *("LOG.TO", "()", "NUM_THREADS", "1"),
    ]


def test_a_training_batch_passes_through_few_files(words, tmp_path, monkeypatch):
    build_handlers = main.build_handlers
    with visited_files() as visited:
        monkeypatch.setattr(
            main, "build_handlers", lambda run, control: [*build_handlers(run, control), visited]
        )
        assert main.main([*words, "OUTPUT_DIR", str(tmp_path / "run")]) == 0
    assert {"engine/trainer.py", "data/dataset.py"} <= visited.names
    assert len(visited.names) <= MAX_TRAINING_FILES, "\n".join(["", *sorted(visited.names)])


def test_an_evaluation_passes_through_few_files(words, tmp_path, monkeypatch):
    assert main.main([*words, "OUTPUT_DIR", str(tmp_path / "run")]) == 0
    weights = tmp_path / "run" / "checkpoints" / "last.pt"
    score = main.score
    with visited_files() as visited:

        def score_profiled(*args, **kwargs):
            visited.start()
            try:
                return score(*args, **kwargs)
            finally:
                visited.stop()

        monkeypatch.setattr(main, "score", score_profiled)
        assert (
            main.main(["-t", "TEST.WEIGHT", str(weights), "OUTPUT_DIR", str(tmp_path / "test")])
            == 0
        )
    assert {"engine/scores.py", "modeling/model.py"} <= visited.names
    assert len(visited.names) <= MAX_EVALUATION_FILES, "\n".join(["", *sorted(visited.names)])
