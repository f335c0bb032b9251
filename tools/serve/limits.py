"""Limits of the server: requests per client and second, and images at a time."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

MAX_CLIENTS = 10_000  # that are remembered


@dataclass(frozen=True)
class Limits:
    """What a server accepts.

    Attributes:
        max_bytes: of an encoded image.
        max_pixels: of a decoded image.
        rate: requests per second of one client, on average; 0: not limited.
        burst: requests of one client at once.
        max_waiting: requests that wait for the network; others are refused.
    """

    max_bytes: int = 5_000_000
    max_pixels: int = 20_000_000
    rate: float = 50.0
    burst: int = 100
    max_waiting: int = 64


class TooManyRequests(Exception):
    """A limit was exceeded; the client may try again after `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"too many requests; try again in {seconds:.1f} s")
        self.seconds = seconds


class TokenBucket:
    """Requests per client: `burst` at once, and `rate` per second on average.

    Args:
        clock: seconds.
    """

    def __init__(
        self, rate: float, burst: int, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.rate, self.burst, self.clock = rate, burst, clock
        self._tokens: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, client: str) -> None:
        """Count a request; raises TooManyRequests if the client has no token left."""
        if not self.rate:
            return
        with self._lock:
            now = self.clock()
            tokens, then = self._tokens.pop(client, (float(self.burst), now))
            tokens = min(self.burst, tokens + (now - then) * self.rate)
            is_allowed = tokens >= 1
            self._tokens[client] = tokens - is_allowed, now
            if len(self._tokens) > MAX_CLIENTS:
                self._tokens.popitem(last=False)
        if not is_allowed:
            raise TooManyRequests((1 - tokens) / self.rate)


class Turnstile:
    """Lets one request compute at a time, and `max_waiting` others wait."""

    def __init__(self, max_waiting: int) -> None:
        self._places = threading.BoundedSemaphore(max_waiting + 1)
        self._lock = threading.Lock()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for the turn; raises TooManyRequests if too many wait already."""
        if not self._places.acquire(blocking=False):
            raise TooManyRequests(1.0)
        try:
            with self._lock:
                yield
        finally:
            self._places.release()
