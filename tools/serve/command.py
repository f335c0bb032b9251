"""Enroll and query a gallery over HTTP.

    python -m tools.serve people.db
    curl -H "Content-Type: image/jpeg" --data-binary @anna.jpg \
        localhost:8000/identities/Anna/images
    curl -H "Content-Type: image/jpeg" --data-binary @photo.jpg localhost:8000/query

localhost:8000/docs describes all requests. The server listens on this machine only. With --host it
is reachable from others; then the environment variable EMBER_REID_TOKEN must contain a token, which
clients send as `Authorization: Bearer TOKEN`. There is no encryption: use a reverse proxy for that.
"""

import argparse
import importlib.util
import math
import os
import socket
from pathlib import Path

import torch
from ember_reid.engine.handlers.logs import setup_logging
from ember_reid.tools.common.cli import Command, check_at_least, echo
from ember_reid.tools.common.model_arguments import add_threshold_argument, add_trust_argument
from ember_reid.tools.common.stored_network import choose_threshold, reopen_network
from ember_reid.tools.gallery.store import Gallery
from ember_reid.tools.serve.limits import Limits

LOOPBACK = ("127.0.0.1", "localhost", "::1")
TOKEN_VARIABLE = "EMBER_REID_TOKEN"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("gallery", type=Path, metavar="FILE", help="see ember-reid gallery add")
    parser.add_argument("--host", default="127.0.0.1", help="(default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="(default: %(default)s)")
    add_threshold_argument(parser)
    parser.add_argument(
        "--max-bytes", type=int, default=Limits.max_bytes, help="of an image (default: %(default)s)"
    )
    parser.add_argument(
        "--rate",
        type=float,
        default=Limits.rate,
        help="requests of one client per second, 0: not limited (default: %(default)s)",
    )
    parser.add_argument("--weights", metavar="FILE", help="the network, if its file was moved")
    parser.add_argument("--threads", type=int, default=0, help="of torch (default: its own)")
    add_trust_argument(parser)


def run(options: argparse.Namespace) -> None:
    """Serve until a signal stops the process."""
    if importlib.util.find_spec("fastapi") is None or importlib.util.find_spec("uvicorn") is None:
        raise ValueError(
            'serve needs fastapi and uvicorn: python -m pip install "ember-reid[serve]"'
        )
    setup_logging()
    check_at_least(options, max_bytes=1, rate=0, threads=0)
    if not math.isfinite(options.rate):
        raise ValueError(f"--rate is {options.rate}, it must be a number of requests per second")
    token = os.environ.get(TOKEN_VARIABLE, "")
    is_local = options.host in LOOPBACK
    if not is_local and len(token) < 16:
        raise ValueError(
            f"--host {options.host} makes the gallery reachable from other machines: set "
            f"{TOKEN_VARIABLE} to a token of at least 16 characters"
        )
    sock = open_socket(options.host, options.port)
    import uvicorn
    from ember_reid.tools.serve.app import Service, create_app

    if options.threads:
        torch.set_num_threads(options.threads)
    limits = Limits(
        max_bytes=options.max_bytes,
        rate=options.rate,
        burst=max(1, round(2 * options.rate)),
    )
    with Gallery(options.gallery) as gallery:
        threshold = choose_threshold(options.threshold, gallery.network, options.weights)
        embedder = reopen_network(
            gallery.network, options.gallery, weights=options.weights, trust=options.trust
        )
        service = Service(gallery, embedder, threshold=threshold, limits=limits)
        app = create_app(service, token=token, hosts=LOOPBACK if is_local else ("*",))
        echo(
            "no threshold: no image is unknown; ember-reid calibrate finds one"
            if threshold is None
            else f"threshold {threshold:.4f}"
        )
        host, port = sock.getsockname()[:2]
        echo(f"listening on http://{f'[{host}]' if ':' in host else host}:{port}, see /docs")
        config = uvicorn.Config(app, log_level="warning", server_header=False)
        uvicorn.Server(config).run(sockets=[sock])


def open_socket(host: str, port: int) -> socket.socket:
    """A listening socket; raises OSError or ValueError if there is none for this address."""
    if not 0 <= port <= 65535:
        raise ValueError(f"--port is {port}, it must be in 0..65535")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        server = socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        raise OSError(f"cannot listen on {host}, port {port}: {error.strerror or error}") from error
    # Connections inherit this. Without it, the body of each answer waits until the client has
    # acknowledged the headers, 40 ms on Linux; asyncio does not set it for this kind of socket.
    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return server


main = Command("serve", __doc__ or "", add_options, run).main
