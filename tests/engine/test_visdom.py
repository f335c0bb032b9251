"""Curves and pictures against a real Visdom server, and into a replay file when none runs."""

import json
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from ember_reid.engine.handlers.visdom import VisdomWriter

visdom = pytest.importorskip("visdom", reason="an optional integration: run `make test-extras`")
pytestmark = pytest.mark.extras


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The port of a server on the loopback address, started without downloads of page assets."""
    folder, port = tmp_path_factory.mktemp("visdom"), free_port()
    start = "from visdom.server.run_server import main; main()"
    command = [
        sys.executable,
        "-c",
        start,
        "-port",
        str(port),
        "-bind_local",
        "-env_path",
        str(folder),
    ]
    with open(folder / "server.log", "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        for _ in range(300):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        else:
            pytest.fail((folder / "server.log").read_text()[-500:])
        yield port
    finally:
        process.terminate()
        process.wait(timeout=10)


def test_curves_and_images_reach_the_server(server, tmp_path):
    writer = VisdomWriter(
        "http://127.0.0.1", server, env="ember", replay_file=tmp_path / "visdom.jsonl"
    )
    writer.load()
    writer.open()
    writer.write("train", 1, 10, {"loss": 2.5, "lr": 0.001})
    writer.write("train", 1, 20, {"loss": 1.5, "lr": 0.001})
    writer.write_image("ranked", 20, np.zeros((8, 4, 3), dtype=np.uint8))
    client = visdom.Visdom(
        port=server, env="ember", use_incoming_socket=False, raise_exceptions=True
    )
    curve = json.loads(client.get_window_data("train/loss"))["content"]["data"][0]
    assert (curve["x"], curve["y"]) == ([10, 20], [2.5, 1.5])
    assert client.win_exists("ranked") and client.win_exists("train/lr")
    assert not (tmp_path / "visdom.jsonl").exists()


def test_without_a_server_the_replay_file_is_written(server, tmp_path):
    replay = tmp_path / "visdom.jsonl"
    writer = VisdomWriter("http://127.0.0.1", free_port(), env="replayed", replay_file=replay)
    writer.open()
    writer.write("test/quickstart", 1, 30, {"mAP": 0.5, "protocol": "all"})
    assert replay.stat().st_size > 0
    client = visdom.Visdom(
        port=server, env="replayed", use_incoming_socket=False, raise_exceptions=True
    )
    client.replay_log(str(replay))
    curve = json.loads(client.get_window_data("test/quickstart/mAP"))["content"]["data"][0]
    assert (curve["x"], curve["y"]) == ([30], [0.5])


def test_a_run_sends_its_curves_and_ranked_images(server, tiny_recipe, tmp_path):
    from ember_reid.main import main

    out = tmp_path / "shown"
    visdom_keys = [
        "LOG.TO",
        "visdom",
        "LOG.VISDOM_SERVER",
        "http://127.0.0.1",
        "LOG.VISDOM_PORT",
        str(server),
    ]
    assert main(["-c", str(tiny_recipe), "OUTPUT_DIR", str(out), *visdom_keys]) == 0
    client = visdom.Visdom(
        port=server, env="shown", use_incoming_socket=False, raise_exceptions=True
    )
    windows = json.loads(client.get_window_data())
    titles = {window["title"] for window in windows.values()}
    assert {"train/loss", "train/lr"} <= titles
    assert any(title.startswith("ranked/") for title in titles)
    assert any(title.endswith("/mAP") for title in titles)


def test_a_server_that_accepts_and_never_answers(tiny_run, tiny_recipe, tmp_path, capfd):
    from ember_reid.main import main

    with socket.create_server(("127.0.0.1", 0)) as listener:
        words = ["LOG.TO", "visdom", "LOG.VISDOM_SERVER", "http://127.0.0.1"]
        words += ["LOG.VISDOM_PORT", str(listener.getsockname()[1]), "OUTPUT_DIR", str(tmp_path)]
        started = time.monotonic()
        assert main(["-c", str(tiny_recipe), *words]) == 0
        # The run itself takes seconds, the writer waits for ten at most.
        assert time.monotonic() - started < 60
    out, err = capfd.readouterr()
    assert "Traceback" not in out + err
    assert out.count("visdom does not respond") + out.count("visdom failed") == 1
    assert (tmp_path / "results.json").read_text() == (tiny_run / "results.json").read_text()
