"""Record versions, commit and machine when a run starts. Missing details are not an error."""

import json
import platform
import re
import subprocess
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

import ignite.distributed as idist
import torch
from ember_reid.data.images import num_cpus
from ember_reid.engine.files import replace_text

from ember_reid import __version__

PACKAGES = ("torch", "torchvision", "pytorch-ignite", "numpy", "scipy", "scikit-learn", "pillow")
ROOT = Path(__file__).resolve().parents[1]
PROCESSORS = Path("/proc/cpuinfo")


def collect_env_info(device: torch.device) -> dict[str, str]:
    """Versions, commit and machine, by display name; without names of hosts, users or paths."""
    found = {
        "ember-reid": __version__,
        "commit": describe_commit(),
        "Python": platform.python_version(),
    }
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    found |= {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": describe_processor(),
        "cores": str(num_cpus()),
        "GPU": "none",
        "processes x threads": f"{idist.get_world_size()} x {torch.get_num_threads()}",
    }
    if device.type == "cuda":
        found |= {"GPU": torch.cuda.get_device_name(device), "CUDA": str(torch.version.cuda)}
    return found


def describe_commit(folder: Path = ROOT) -> str:
    """The checked-out commit, with "+ changes" if tracked files differ; or why it is unknown."""
    try:
        top, commit = _git(folder, "rev-parse", "--show-toplevel", "HEAD").split("\n")
        if Path(top).resolve() != folder.resolve():
            # The package lies inside another repository.
            return "unknown: not a git checkout"
        changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except FileNotFoundError:
        return "unknown: git is not installed"
    except (OSError, subprocess.SubprocessError, ValueError):
        return "unknown: not a git checkout"
    return f"{commit[:12]} + changes" if changes else commit[:12]


def _git(folder: Path, *words: str) -> str:
    # Without this option, git would lock the repository briefly and disturb other processes.
    command = ["git", "--no-optional-locks", "-C", str(folder), *words]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=20, check=True
    ).stdout.strip()


def describe_processor() -> str:
    """The model name of the processor, or its architecture if the name is unknown."""
    try:
        found = re.search(
            r"^model name\s*:\s*(.+)$", PROCESSORS.read_text(errors="replace"), re.MULTILINE
        )
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine() or "unknown"


def record_start(path: Path, env_info: Mapping[str, str], *, iteration: int) -> None:
    """Append to the JSON list at `path`: time, iterations done before, environment.

    A damaged file is replaced.
    """
    try:
        starts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        starts = []
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    starts = [
        *(starts if isinstance(starts, list) else []),
        {"time": now, "iteration": iteration, **env_info},
    ]
    replace_text(path, json.dumps(starts, indent=2) + "\n")
