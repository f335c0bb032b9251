import asyncio
import socket
import threading

import pytest
from ember_reid.tools.benchmark.serve import main as benchmark
from ember_reid.tools.serve.command import main, open_socket
from ember_reid.tools.serve.limits import Limits, TokenBucket, TooManyRequests, Turnstile


def test_a_client_gets_its_burst_and_then_its_rate():
    now = [0.0]
    bucket = TokenBucket(2.0, 3, clock=lambda: now[0])
    for _ in range(3):
        bucket.take("a")
    with pytest.raises(TooManyRequests) as caught:
        bucket.take("a")
    assert caught.value.seconds == pytest.approx(0.5)
    bucket.take("b")
    now[0] = 0.5
    bucket.take("a")
    with pytest.raises(TooManyRequests):
        bucket.take("a")
    now[0] = 100.0
    for _ in range(3):
        bucket.take("a")
    with pytest.raises(TooManyRequests):
        bucket.take("a")


def test_a_rate_of_zero_is_no_limit():
    bucket = TokenBucket(0.0, 1)
    for _ in range(100):
        bucket.take("a")


def test_requests_beyond_the_waiting_ones_are_refused():
    turnstile = Turnstile(max_waiting=1)
    entered, leave = threading.Event(), threading.Event()

    def hold():
        with turnstile.turn():
            entered.set()
            leave.wait(10)

    def wait():
        with turnstile.turn():
            pass

    threads = [threading.Thread(target=hold)]
    threads[0].start()
    assert entered.wait(10)
    threads.append(threading.Thread(target=wait))
    threads[1].start()
    while turnstile._places._value:
        pass
    with pytest.raises(TooManyRequests), turnstile.turn():
        pass
    leave.set()
    for thread in threads:
        thread.join()
    with turnstile.turn():
        pass


def test_a_port_in_use_costs_one_line():
    with open_socket("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1, port {port}: "):
            open_socket("127.0.0.1", port)
    with pytest.raises(ValueError, match="--port is 70000, it must be in 0..65535"):
        open_socket("127.0.0.1", 70000)


def test_answers_are_sent_without_delay():
    with (
        open_socket("127.0.0.1", 0) as server,
        socket.create_connection(server.getsockname(), timeout=10),
        server.accept()[0] as connection,
    ):
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_full_disk_is_reported_to_the_client():
    app_module = pytest.importorskip("ember_reid.tools.serve.app", reason="fastapi is missing")

    class FullGallery:
        def forget(self, names):
            raise OSError("people.db: database or disk is full; nothing was changed")

    service = app_module.Service(FullGallery(), None, threshold=None, limits=Limits())
    app = app_module.create_app(service)
    scope = {
        "type": "http",
        "method": "DELETE",
        "path": "/identities/Anna",
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
        "client": ("127.0.0.1", 1),
    }
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 507
    assert b"database or disk is full; nothing was changed" in sent[1]["body"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["x.db", "--rate", "nan"], "--rate is nan"),
        (["x.db", "--max-bytes", "0"], "--max-bytes is 0"),
        (["x.db", "--host", "0.0.0.0"], "set EMBER_REID_TOKEN to a token"),
    ],
)
def test_unsafe_or_invalid_options_are_refused(words, message, monkeypatch, capsys):
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    monkeypatch.delenv("EMBER_REID_TOKEN", raising=False)
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_the_benchmark_without_a_server_costs_one_line(tmp_path, capsys):
    image = tmp_path / "a.jpg"
    image.write_bytes(b"x")
    with open_socket("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    assert benchmark([str(image), "--url", f"http://127.0.0.1:{port}"]) == 2
    assert f"no server answers at http://127.0.0.1:{port}" in capsys.readouterr().err
