r"""Write the embeddings of images to an .npz file.

    python -m tools.extract TEST.WEIGHT runs/quickstart/checkpoints/best.pt --ids prefix \
        --out features.npz datasets/quickstart/market1501/bounding_box_test
    python -m tools.extract weights=runs/quickstart/checkpoints/best.pt photos cows.csv \
        --out cows.npz

Images are files, folders, or CSV files with a column `path` (and `pid`, `camid` if known). FILE.npz
contains `embeddings` [N, D] of unit length, `paths`, `pids`, `camids`, and the metadata of the
network with its fingerprint. tools.search reads it. Images that cannot be read are left out and
listed at the end. To continue an interrupted run, repeat the command. torchrun distributes the
work to several machines that share a file system.
"""

import argparse
import hashlib
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import parent_process
from pathlib import Path

import numpy as np
import torch
from ember_reid.data.images import ImageError, num_cpus
from ember_reid.engine.deploy.embedder import Embedder
from ember_reid.engine.handlers.logs import setup_logging
from ember_reid.engine.run.launch import max_processes
from ember_reid.tools.common.cli import Command, add_recipe, check_at_least, echo
from ember_reid.tools.common.feature_file import (
    Features,
    check_embeddings,
    load_arrays,
    load_features,
    save_arrays,
    save_features,
    words,
)
from ember_reid.tools.common.inputs import IDS, ImageFile, read_images, split_overrides
from ember_reid.tools.common.model_arguments import add_trust_argument
from ember_reid.tools.common.stored_network import StoredNetwork, open_network
from torch import Tensor
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException
from tqdm import tqdm

# Images per part. An interrupted run loses at most one part per process.
CHUNK = 512


@dataclass(frozen=True)
class Job:
    """Settings of all processes; `chunk` is the number of images per part in `folder`."""

    images: list[ImageFile]
    config: str | None
    words: list[str]
    half: bool
    trust: bool
    batch_size: int
    progress: bool
    chunk: int
    folder: Path = Path()


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_recipe(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.npz")
    parser.add_argument(
        "--ids",
        default="none",
        help=f"where the identity of an image comes from: {' | '.join(IDS)}",
    )
    parser.add_argument(
        "--batch", type=int, default=64, help="images at a time (default %(default)s)"
    )
    parser.add_argument("--half", action="store_true", help="compute in float16 (on GPUs)")
    add_trust_argument(parser)
    parser.add_argument("--processes", type=int, default=0, help="default: one per GPU, or one")
    parser.add_argument("--no-progress", action="store_true", help="no progress bar")
    parser.add_argument(
        "words",
        nargs="*",
        metavar="KEY VALUE | IMAGES",
        help="TEST.WEIGHT FILE, other keys, and the images to embed",
    )


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    setup_logging(quiet=_ranks()[0] > 0)
    for line in extract(options):
        echo(line)


def extract(arguments: argparse.Namespace) -> Iterator[str]:
    """Embed the images and write the file; the first process yields lines for the user."""
    keys, sources = split_overrides(arguments.words)
    if not sources:
        raise ValueError("no images: give files, folders or CSV files after TEST.WEIGHT FILE")
    check_at_least(arguments, batch=1)
    most = max_processes(torch.cuda.device_count())
    if not 0 <= arguments.processes <= most:
        raise ValueError(
            f"--processes is {arguments.processes}, allowed on this machine: 0 to {most}"
        )
    if arguments.out.suffix != ".npz":
        raise ValueError(f"--out is {arguments.out}, it must end in .npz")
    images = read_images(sources, ids=arguments.ids)
    job = Job(
        images,
        arguments.config,
        keys,
        arguments.half,
        arguments.trust,
        arguments.batch,
        not arguments.no_progress,
        CHUNK,
    )
    embedder, network = open_embedder(job, local_rank=_ranks()[2])
    plan = _plan(images, embedder)
    rank, world_size, _ = _ranks()
    if arguments.out.is_file() and _is_done(arguments.out, plan):
        if rank == 0:
            yield f"{arguments.out} already contains these images, embedded with this network"
        return
    folder = arguments.out.with_name(f".{arguments.out.name}.{plan}.parts")
    folder.mkdir(parents=True, exist_ok=True)
    job = replace(job, folder=folder)
    _embed_all(job, embedder, arguments.processes, rank, world_size)
    if rank > 0:
        return
    features = collect(job, embedder, network=network, plan=plan)
    save_features(arguments.out, features)
    for old in arguments.out.parent.glob(f".{arguments.out.name}.*.parts"):
        shutil.rmtree(old, ignore_errors=True)
    for path, reason in zip(features.broken, features.reasons, strict=True):
        yield f"left out: {reason if str(path) in str(reason) else f'{path}: {reason}'}"
    count, dim = features.embeddings.shape
    yield (
        f"{arguments.out}: {count} embeddings of {dim} dimensions, {len(features.broken)} images "
        f"left out, fingerprint {embedder.metadata.fingerprint}"
    )


def _ranks() -> tuple[int, int, int]:
    """(rank, number of processes, local rank) from torchrun, or those of a single process."""
    read = os.environ.get
    return int(read("RANK", 0)), int(read("WORLD_SIZE", 1)), int(read("LOCAL_RANK", 0))


def open_embedder(job: Job, *, local_rank: int = 0) -> tuple[Embedder, StoredNetwork]:
    """The network of the job on its device, and what the file says about it."""
    use_cuda = embedder_on_gpu(job)
    if use_cuda:
        torch.cuda.set_device(local_rank % torch.cuda.device_count())
    return open_network(
        job.words,
        recipe=job.config,
        device="cuda" if use_cuda else "cpu",
        half=job.half,
        trust=job.trust,
    )


def _plan(images: Sequence[ImageFile], embedder: Embedder) -> str:
    """A digest of the network, the list of images, and the state of each file in it."""
    digest = hashlib.sha256(embedder.metadata.to_json().encode())
    for image in images:
        try:
            status = os.stat(image.path)
            state = f"{status.st_size} {status.st_mtime_ns}"
        except (OSError, ValueError):
            state = "missing"
        line = f"{image.path}\0{image.pid}\0{image.camid}\0{state}\n"
        digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def _is_done(path: Path, plan: str) -> bool:
    try:
        return load_features(path)[0].plan == plan
    except ValueError as error:
        raise ValueError(f"--out names a file of another kind: {error}") from error


def _embed_all(job: Job, embedder: Embedder, processes: int, rank: int, world_size: int) -> None:
    processes = processes or max(torch.cuda.device_count() if embedder_on_gpu(job) else 1, 1)
    if world_size > 1 or processes == 1:
        embed_share(job, embedder, rank, world_size)
    else:
        try:
            torch.multiprocessing.spawn(_work, args=(job, processes), nprocs=processes)
        except (ProcessRaisedException, ProcessExitedException) as error:
            reason = str(error).strip().splitlines()[-1]
            raise ValueError(
                f"a process failed: {reason}; run the same command again to continue"
            ) from error


def embedder_on_gpu(job: Job) -> bool:
    """Whether the job's network runs on GPUs."""
    device = dict(zip(job.words[::2], job.words[1::2], strict=False)).get("DEVICE", "auto")
    return device != "cpu" and torch.cuda.is_available()


def _work(rank: int, job: Job, num_processes: int) -> None:
    """Run one of several processes of this machine."""
    if not embedder_on_gpu(job):
        torch.set_num_threads(max(num_cpus() // num_processes, 1))
    setup_logging(quiet=True)
    embed_share(job, open_embedder(job, local_rank=rank)[0], rank, num_processes)


def _parts(job: Job) -> list[Path]:
    return [job.folder / f"{first:09d}.npz" for first in range(0, len(job.images), job.chunk)]


def embed_share(job: Job, embedder: Embedder, rank: int, num_processes: int) -> None:
    """Write every `num_processes`-th part that does not exist yet.

    A spawned process ends when its parent has ended.
    """
    parent = parent_process()
    mine = list(enumerate(_parts(job)))[rank::num_processes]
    total = sum(
        len(job.images[number * job.chunk : (number + 1) * job.chunk]) for number, _ in mine
    )
    # None: shown only on terminals.
    hidden = None if job.progress and rank == 0 else True
    share = f"1 of {num_processes} processes" if num_processes > 1 else None
    with tqdm(total=total, unit="image", desc=share, disable=hidden, leave=False) as bar:
        for number, path in mine:
            if parent and not parent.is_alive():
                return
            images = job.images[number * job.chunk : (number + 1) * job.chunk]
            if _read_part(path, len(images), embedder.metadata.embedding_dim) is None:
                save_arrays(path, embed_images(images, embedder, job.batch_size))
            bar.update(len(images))


def embed_images(
    images: Sequence[ImageFile], embedder: Embedder, batch_size: int
) -> dict[str, np.ndarray]:
    """Embed the readable images [n, D]; also their positions [n], and reasons for the others.

    Raises:
        ValueError: the network produces embeddings that are not finite or not of unit length.
    """

    def decode(image: ImageFile) -> Tensor | str:
        try:
            return embedder.prepare(image.path)
        except (ImageError, OSError, ValueError) as error:
            return str(error)

    positions, reasons, rows = [], {}, []
    with ThreadPoolExecutor(num_cpus()) as pool:
        # Images are decoded while the network runs; one part fits into memory.
        decoded = pool.map(decode, images)
        for first in range(0, len(images), batch_size):
            batch = []
            for position in range(first, min(first + batch_size, len(images))):
                image = next(decoded)
                if isinstance(image, str):
                    reasons[position] = image
                else:
                    batch.append(image)
                    positions.append(position)
            if batch:
                rows.append(embedder.embed_batch(torch.stack(batch)).numpy())
    dim = embedder.metadata.embedding_dim
    embeddings = np.concatenate(rows) if rows else np.zeros((0, dim), np.float32)
    check_embeddings(embeddings, count=len(positions), dim=dim)
    return {
        "embeddings": embeddings,
        "positions": np.array(positions, np.int64),
        "broken": np.array(list(reasons), np.int64),
        "reasons": words(list(reasons.values())),
    }


def _read_part(path: Path, num_images: int, dim: int) -> dict[str, np.ndarray] | None:
    """Read an existing part; None if it is missing or damaged."""
    try:
        part = load_arrays(path, ("embeddings", "positions", "broken", "reasons"))
        positions, broken = part["positions"], part["broken"]
        check_embeddings(part["embeddings"], count=len(positions), dim=dim)
    except (ValueError, TypeError):
        return None
    indices = np.concatenate([positions, broken])
    is_complete = np.array_equal(np.sort(indices), np.arange(num_images))
    return part if is_complete and part["reasons"].shape == broken.shape else None


def collect(job: Job, embedder: Embedder, *, network: StoredNetwork, plan: str) -> Features:
    """Join all parts; wait for those of other machines."""
    embeddings, kept, broken, reasons = [], [], [], []
    for number, path in enumerate(_parts(job)):
        first = number * job.chunk
        num_images = len(job.images[first : first + job.chunk])
        # A damaged part of another machine is replaced by that machine.
        while (part := _read_part(path, num_images, embedder.metadata.embedding_dim)) is None:
            time.sleep(0.5)
        embeddings.append(part["embeddings"])
        kept += (first + part["positions"]).tolist()
        broken += (first + part["broken"]).tolist()
        reasons += part["reasons"].tolist()
    if not kept:
        raise ValueError(
            f"none of the {len(job.images)} images can be read; the first: {reasons[0]}"
        )
    images = [job.images[position] for position in kept]
    return Features(
        embeddings=np.concatenate(embeddings),
        paths=words([image.path for image in images]),
        pids=words([image.pid for image in images]),
        camids=words([image.camid for image in images]),
        card=network.card,
        weights=network.weights,
        config=network.config,
        plan=plan,
        broken=words([job.images[position].path for position in broken]),
        reasons=words(reasons),
    )


main = Command(
    "extract",
    __doc__ or "",
    add_options,
    run,
    interrupted="interrupted; run the same command again to continue",
).main
