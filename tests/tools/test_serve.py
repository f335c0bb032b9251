"""A real server and real clients; `make test-extras` installs what they need."""

import http.client
import json
import os
import signal
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from ember_reid.tools.benchmark.serve import main as benchmark
from ember_reid.tools.gallery import main as gallery_command
from ember_reid.tools.gallery.store import Gallery

pytestmark = pytest.mark.extras
PROGRAM = """
import sys
import tests.helpers.tiny
from ember_reid.tools.serve import main
sys.exit(main(sys.argv[1:]))
"""
JPEG = {"Content-Type": "image/jpeg"}


class Server:
    """A server process; `call(method, path, body, headers)` returns (status, content)."""

    def __init__(self, gallery, *words, token=""):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "EMBER_REID_TOKEN": token}
        words = [str(gallery), "--port", "0", "--rate", "0", "--threads", "1", *words]
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *words],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for line in self.process.stdout:
            if line.startswith("listening on"):
                self.port = int(line.split(",")[0].rpartition(":")[2])
                return
        raise AssertionError(f"the server stopped with exit code {self.process.wait()}")

    def call(self, method, path, body=None, headers=JPEG):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            content = response.read()
            if response.getheader("Content-Type", "").startswith("application/json"):
                content = json.loads(content)
            return response.status, content
        finally:
            connection.close()

    def stop(self, kind=signal.SIGTERM):
        self.process.send_signal(kind)
        self.process.wait(30)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def photos(tiny_market):
    return sorted((tiny_market / "bounding_box_test").glob("*.jpg"))


@pytest.fixture(scope="module")
def gallery(tiny_run, photos, tmp_path_factory):
    path = tmp_path_factory.mktemp("served") / "people.db"
    weights = tiny_run / "checkpoints" / "best.pt"
    words = ["add", str(path), f"weights={weights}", "--name", "first", str(photos[0])]
    assert gallery_command(words) == 0
    return path


@pytest.fixture(scope="module")
def server(gallery):
    running = Server(gallery, "--threshold", "0.001", "--max-bytes", "20000")
    yield running
    running.stop()


def test_enroll_query_list_and_forget(server, photos):
    image = photos[5].read_bytes()
    assert server.call("POST", "/identities/Zo%C3%A9/images?camera=c1", image) == (
        201,
        {"identity": "Zo\u00e9", "added": 1},
    )
    assert server.call("POST", "/identities/Zo%C3%A9/images", image)[1]["added"] == 0
    status, answer = server.call("POST", "/query?top=2", image)
    assert status == 200 and answer["known"] is True
    assert answer["candidates"][0]["name"] == "Zo\u00e9"
    assert server.call("GET", "/identities") == (200, ["first", "Zo\u00e9"])
    assert server.call("GET", "/health")[1]["images"] == 2
    assert server.call("DELETE", "/identities/Zo%C3%A9") == (200, {"deleted": 1})
    assert server.call("DELETE", "/identities/Zo%C3%A9")[0] == 404
    assert server.call("GET", "/identities")[1] == ["first"]


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/query", b"not an image", JPEG, 422),
        ("/query", b"", JPEG, 422),
        ("/query", b"x" * 20_001, JPEG, 413),
        ("/query", b"x", {"Content-Type": "text/plain"}, 415),
        ("/query?top=0", b"x", JPEG, 422),
        ("/query", b"x", {**JPEG, "Host": "evil.example"}, 400),
        (f"/identities/{'x' * 201}/images", b"x", JPEG, 422),
        ("/identities/%0a/images", b"x", JPEG, 422),
    ],
)
def test_bad_requests_are_refused(server, path, body, headers, status):
    assert server.call("POST", path, body, headers)[0] == status
    assert server.call("GET", "/identities")[1] == ["first"]


def test_a_decompression_bomb_is_refused(server):
    # A PNG header that announces 30,000 x 30,000 pixels.
    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    image = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"")
    assert server.call("POST", "/query", image)[0] == 413


def test_the_openapi_page_describes_every_request(server):
    status, schema = server.call("GET", "/openapi.json")
    assert status == 200
    assert set(schema["paths"]) == {
        "/health",
        "/identities",
        "/identities/{name}",
        "/identities/{name}/images",
        "/query",
    }
    assert server.call("GET", "/docs")[0] == 200


def test_sixteen_clients_get_what_one_gets(server, photos):
    images = [photo.read_bytes() for photo in photos[:8]]
    alone = [server.call("POST", "/query", image)[1] for image in images]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda image: server.call("POST", "/query", image)[1], images * 8))
    assert together == alone * 8


def test_the_benchmark_measures_a_running_server(server, photos, capsys):
    words = [str(photos[0]), "--url", f"http://127.0.0.1:{server.port}"]
    assert benchmark([*words, "--clients", "1", "3", "--requests", "4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["clients", "1", "3"]
    assert all(float(line.split()[1]) <= float(line.split()[3]) for line in lines[1:])


def test_a_rate_limit_answers_429(gallery):
    limited = Server(gallery, "--rate", "1")
    try:
        statuses = [limited.call("GET", "/health")[0] for _ in range(4)]
    finally:
        limited.stop()
    assert statuses[:2] == [200, 200] and statuses[-1] == 429


def test_a_token_is_required_if_there_is_one(gallery):
    token = "0123456789abcdef"
    protected = Server(gallery, token=token)
    try:
        assert protected.call("GET", "/health")[0] == 401
        assert protected.call("GET", "/health", None, {"Authorization": "Bearer x"})[0] == 401
        right = {"Authorization": f"Bearer {token}"}
        assert protected.call("GET", "/health", None, right)[0] == 200
    finally:
        protected.stop()


def test_a_kill_loses_nothing_that_was_acknowledged(tiny_run, photos, tmp_path):
    path = tmp_path / "people.db"
    weights = tiny_run / "checkpoints" / "best.pt"
    words = ["add", str(path), f"weights={weights}", "--name", "first", str(photos[0])]
    assert gallery_command(words) == 0
    running = Server(path)
    acknowledged = []

    def enroll(number):
        try:
            name = f"p{number}"
            image = photos[number % len(photos)].read_bytes()
            if running.call("POST", f"/identities/{name}/images", image)[0] == 201:
                acknowledged.append(name)
        except (OSError, http.client.HTTPException):
            pass
        if len(acknowledged) == 20:
            running.process.kill()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(enroll, range(200)))
    running.stop(signal.SIGKILL)
    with Gallery(path) as gallery:
        names = gallery.snapshot().names
    assert 20 <= len(acknowledged) < 200 and set(acknowledged) <= set(names)
    again = Server(path)
    assert again.call("GET", "/health")[1]["identities"] == len(names)
    again.stop()
