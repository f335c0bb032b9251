"""A writer that fails, hangs or is slow does not affect the training."""

import functools
import threading
import time

import numpy as np
import pytest
from ember_reid.engine.handlers import trackers
from ember_reid.engine.handlers.background import MAX_IMAGES, BackgroundWriter
from ember_reid.engine.handlers.writers import MetricWriter

from ember_reid import main


class Recorder(MetricWriter):
    """Records calls; waits for `gate` and raises `error` if given."""

    accepts_images = True

    def __init__(self, *, error=None, gate=None):
        self.calls, self.error, self.gate = [], error, gate

    def write(self, source, epoch, iteration, values):
        if self.gate is not None:
            self.gate.wait(5)
        if self.error is not None:
            raise self.error
        self.calls.append((source, iteration, values))

    def write_image(self, title, iteration, image):
        if self.gate is not None:
            self.gate.wait(5)
        self.calls.append((title, iteration))

    def close(self):
        self.calls.append("closed")


def test_entries_arrive_in_order_and_are_copied():
    recorder = Recorder()
    writer = BackgroundWriter(recorder, "service")
    assert writer.accepts_images
    writer.open()
    values = {"loss": 1.0}
    writer.write("train", 1, 1, values)
    values["loss"] = 2.0
    writer.write("train", 1, 2, values)
    writer.close()
    assert recorder.calls == [("train", 1, {"loss": 1.0}), ("train", 2, {"loss": 2.0}), "closed"]


def test_an_error_gives_one_warning_and_ends_the_writer(caplog):
    writer = BackgroundWriter(Recorder(error=ConnectionError("server gone\nbye")), "service")
    writer.open()
    for iteration in range(3):
        writer.write("train", 1, iteration, {})
    writer.close()
    assert [record.getMessage() for record in caplog.records] == [
        "service failed and is no longer used; the training continues: server gone bye"
    ]


def test_a_service_that_hangs_does_not_stop_the_run(caplog):
    gate = threading.Event()
    writer = BackgroundWriter(Recorder(gate=gate), "service", queue_size=2, close_timeout=0.1)
    writer.open()
    started = time.monotonic()
    for iteration in range(10):
        writer.write("train", 1, iteration, {})
    writer.close()
    assert time.monotonic() - started < 2
    assert writer.num_dropped >= 6
    messages = [record.getMessage() for record in caplog.records]
    assert messages[0] == "service is too slow; entries that do not fit are dropped"
    assert messages[-1] == "service does not respond; its last entries are lost"
    gate.set()


def test_few_images_are_queued(caplog):
    gate = threading.Event()
    recorder = Recorder(gate=gate)
    writer = BackgroundWriter(recorder, "service")
    writer.open()
    writer.write("train", 1, 0, {})
    for iteration in range(MAX_IMAGES + 3):
        writer.write_image("ranked", iteration, np.zeros((2, 2, 3), np.uint8))
    assert writer.num_dropped == 3
    gate.set()
    writer.close()
    assert [call for call in recorder.calls if call[0] == "ranked"] == [
        ("ranked", iteration) for iteration in range(MAX_IMAGES)
    ]
    assert [record.getMessage() for record in caplog.records] == [
        "service is too slow; entries that do not fit are dropped"
    ]


@pytest.mark.parametrize("error", [ModuleNotFoundError("no module"), SystemExit("bye")])
def test_a_library_that_cannot_be_imported_gives_one_warning(caplog, error):
    class Missing(Recorder):
        def load(self):
            raise error

    recorder = Missing()
    writer = BackgroundWriter(recorder, "service")
    writer.open()
    assert not writer.accepts_images
    writer.write("train", 1, 1, {})
    writer.close()
    assert recorder.calls == []
    assert [record.getMessage() for record in caplog.records] == [
        f"service failed and is no longer used; the training continues: {error}"
    ]


@pytest.mark.parametrize(("seconds", "is_complete"), [(0.3, True), (3, False)])
def test_the_end_of_a_run_waits_for_uploads_but_not_forever(caplog, seconds, is_complete):
    finished = []

    class Uploader(Recorder):
        def close(self):
            time.sleep(seconds)
            finished.append(True)

    writer = BackgroundWriter(Uploader(), "service", close_timeout=0.1, finish_timeout=1)
    writer.open()
    started = time.monotonic()
    writer.close()
    assert time.monotonic() - started < 2
    assert finished == [True] * is_complete
    messages = [record.getMessage() for record in caplog.records]
    lost = ["service does not respond; its last entries are lost"]
    assert messages == ([] if is_complete else lost)


def test_a_run_does_not_wait_for_a_service_that_never_answers(
    tiny_run, tiny_recipe, tmp_path, monkeypatch, capfd
):
    gate = threading.Event()

    class Silent(MetricWriter):
        def open(self, *, resumed_iteration=None):
            gate.wait(60)

        def write(self, source, epoch, iteration, values):
            raise AssertionError("nothing is written before the service is open")

    short = functools.partial(BackgroundWriter, close_timeout=0.2)
    monkeypatch.setattr(trackers, "BackgroundWriter", short)
    monkeypatch.setitem(trackers.TRACKERS, "visdom", lambda run: Silent())
    words = ["-c", str(tiny_recipe), "LOG.TO", "visdom", "OUTPUT_DIR", str(tmp_path)]
    started = time.monotonic()
    assert main.main(words) == 0
    assert time.monotonic() - started < 50
    gate.set()
    out, err = capfd.readouterr()
    assert err == "" and out.count("visdom does not respond; its last entries are lost") == 1
    assert (tmp_path / "results.json").read_text() == (tiny_run / "results.json").read_text()
