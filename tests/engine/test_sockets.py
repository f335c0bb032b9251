# ruff: noqa: F811 (fixtures of another test file)
"""What a run of several processes on one machine lets others reach: nothing."""

import json
import os
from pathlib import Path

from tests.engine.test_processes import TWO, at_iteration, fork, launch  # noqa: F401

LISTEN = "0A"
LOOPBACK = ("0100007F", "00000000000000000000000001000000")


def listening_sockets() -> list[str]:
    """The hexadecimal addresses on which this process listens."""
    links = [os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    own = {link[8:-1] for link in links if link.startswith("socket:")}
    rows = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path("/proc/net", name).read_text().splitlines()[1:]
    ]
    return [row[1].split(":")[0] for row in rows if row[3] == LISTEN and row[9] in own]


def test_processes_of_one_machine_listen_on_the_loopback_address_only(
    launch, at_iteration, tmp_path
):
    at_iteration(2, 0, lambda: (tmp_path / "0").write_text(json.dumps(listening_sockets())))
    assert launch("run", *TWO)[0] == 0
    addresses = json.loads((tmp_path / "0").read_text())
    assert addresses and set(addresses) <= set(LOOPBACK)
