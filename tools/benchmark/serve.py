"""Measure a running server under load: latencies of queries for several numbers of clients.

    python -m tools.serve people.db --rate 0
    python -m tools.benchmark serve photo.jpg --clients 1 4 16

Each client sends its next query when the answer to the last one has arrived.
"""

import argparse
import http.client
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from ember_reid.tools.common.cli import Command, check_at_least, echo


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("image", type=Path, help="the query")
    parser.add_argument(
        "--url", default="http://127.0.0.1:8000", help="of the server (default: %(default)s)"
    )
    parser.add_argument(
        "--clients",
        type=int,
        nargs="+",
        default=[1, 2, 4, 8, 16],
        help="clients at a time (default: %(default)s)",
    )
    parser.add_argument(
        "--requests", type=int, default=50, help="of each client (default: %(default)s)"
    )


def run(options: argparse.Namespace) -> None:
    """Measure and print."""
    check_at_least(options, requests=1)
    if min(options.clients) < 1:
        raise ValueError(f"--clients is {min(options.clients)}, it must be at least 1")
    image = options.image.read_bytes()
    send_queries(options.url, image, count=5)
    echo("clients     p50      p99   queries/s")
    for num_clients in options.clients:
        start = time.perf_counter()
        with ThreadPoolExecutor(num_clients) as pool:
            jobs = [
                pool.submit(send_queries, options.url, image, count=options.requests)
                for _ in range(num_clients)
            ]
            seconds = [value for job in jobs for value in job.result()]
        rate = len(seconds) / (time.perf_counter() - start)
        middle, late = 1000 * np.percentile(seconds, [50, 99])
        echo(f"{num_clients:7}  {middle:5.1f} ms {late:5.1f} ms {rate:9.1f}")


def send_queries(url: str, image: bytes, *, count: int) -> Sequence[float]:
    """Seconds of each of `count` queries of one client, on one connection.

    Raises:
        OSError: the server cannot be reached.
        ValueError: it refuses a query.
    """
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
    seconds = []
    try:
        for _ in range(count):
            start = time.perf_counter()
            connection.request("POST", "/query", image, {"Content-Type": "image/*"})
            response = connection.getresponse()
            content = response.read()
            seconds.append(time.perf_counter() - start)
            if response.status != 200:
                answer = content[:200].decode(errors="replace")
                raise ValueError(
                    f"the server answers {response.status}: {answer}"
                    + ("; start it with --rate 0" if response.status == 429 else "")
                )
    except (OSError, http.client.HTTPException) as error:
        raise OSError(f"no server answers at {url}: {error}") from error
    finally:
        connection.close()
    return seconds


main = Command("benchmark serve", __doc__ or "", add_options, run).main
