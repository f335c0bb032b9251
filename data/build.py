"""From the configuration to splits, loaders and augmentation."""

import logging
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from ember_reid.data.augment import Augmentation, AugmentationSettings, Normalization
from ember_reid.data.batch import collate
from ember_reid.data.cache import CPU, ImageCache, choose_cache
from ember_reid.data.dataset import ReidDataset, used_paths
from ember_reid.data.datasets import LAYOUTS, read, resolve
from ember_reid.data.images import check_files, find_broken, num_cpus
from ember_reid.data.protocols import apply_protocol
from ember_reid.data.records import Record, Splits, check_test_splits, merge_train, merged_classes
from ember_reid.data.samplers import IdentityBatchSampler, RandomBatchSampler, TestBatchSampler
from ember_reid.data.validation import hold_out
from torch.utils.data import DataLoader
from yacs.config import CfgNode

logger = logging.getLogger("ember.data")


class Corpus(NamedTuple):
    """All data of a run: merged training records with class indices 0..num_classes-1, and the test sets by
    name; `classes` are (dataset, its label of the identity) by class index.
    """

    train: tuple[Record, ...]
    num_classes: int
    tests: dict[str, Splits]
    validation: dict[str, Splits]
    classes: tuple[tuple[str, str], ...] = ()


def build_splits(cfg: CfgNode, *, train: bool = True) -> Corpus:
    """Read and check all datasets of the configuration; without `train` only those that are tested on.

    Raises ValueError and OSError in one sentence each, before anything else has begun.
    """
    root = Path(cfg.DATASETS.ROOT)
    train_specs = tuple(cfg.DATASETS.NAMES) if train else ()
    test_specs = tuple(cfg.DATASETS.TESTS) or tuple(cfg.DATASETS.NAMES)
    loaded: dict[str, Splits] = {}
    for spec in dict.fromkeys((*train_specs, *test_specs)):
        source = resolve(spec, root)
        splits = read(source)
        if spec in train_specs and not splits.train:
            raise ValueError(
                f"{source.name} has no training images in {source.path};"
                f" expected there: {LAYOUTS[source.name].holds}"
            )
        loaded[spec] = splits._replace(
            train=splits.train if spec in train_specs else (),
            query=splits.query if spec in test_specs else (),
            gallery=splits.gallery if spec in test_specs else (),
        )
    if cfg.DATALOADER.SKIP_BROKEN:
        loaded = _without_broken(loaded)
    else:
        for splits in loaded.values():
            check_files([path for part in splits[:3] for r in part for path in r.paths[:1]])
    kept, held_out = _hold_out(cfg, [loaded[spec] for spec in train_specs])
    records = merge_train(kept)
    num_classes = 1 + max((record.pid for record in records), default=-1)
    tests = _by_name([apply_protocol(loaded[spec], cfg.TEST.PROTOCOL) for spec in test_specs])
    return Corpus(records, num_classes, tests, _by_name(held_out), merged_classes(kept))


def _hold_out(cfg: CfgNode, parts: list[Splits]) -> tuple[list[Splits], list[Splits]]:
    """The datasets without their held-out identities, and these as test sets (TEST.VALIDATION)."""
    fraction = cfg.TEST.VALIDATION
    if fraction == 0:
        return parts, []
    pairs = [hold_out(splits, fraction, seed=cfg.SEED) for splits in parts]
    return [kept for kept, _ in pairs], [held_out for _, held_out in pairs]


def _by_name(parts: list[Splits]) -> dict[str, Splits]:
    """Test sets that were checked, each under a name of its own."""
    tests: dict[str, Splits] = {}
    for splits in parts:
        tests[_unused_name(splits.name, tests)] = check_test_splits(splits)
    return tests


def _unused_name(name: str, taken: dict[str, Splits]) -> str:
    """`name`, or name-2, name-3, ... when a dataset of that name is there already."""
    number, unused = 1, name
    while unused in taken:
        number += 1
        unused = f"{name}-{number}"
    return unused


def _without_broken(loaded: dict[str, Splits]) -> dict[str, Splits]:
    """Decode every file once and leave out those that cannot be; tracklets lose frames, or go when none is
    left.
    """
    paths = dict.fromkeys(
        p for s in loaded.values() for part in s[:3] for r in part for p in r.paths
    )
    broken = find_broken(list(paths))
    if not broken:
        return loaded
    shown = "; ".join(list(broken.values())[:5])
    logger.warning(
        "left out %d of %d image files that cannot be read: %s", len(broken), len(paths), shown
    )

    def keep(records: tuple[Record, ...]) -> tuple[Record, ...]:
        whole = (r._replace(paths=tuple(p for p in r.paths if p not in broken)) for r in records)
        return tuple(record for record in whole if record.paths)

    return {
        spec: s._replace(train=keep(s.train), query=keep(s.query), gallery=keep(s.gallery))
        for spec, s in loaded.items()
    }


def build_train_loader(
    cfg: CfgNode,
    records: Sequence[Record],
    *,
    rank: int = 0,
    world_size: int = 1,
    device: torch.device = CPU,
) -> DataLoader:
    """Batches of SOLVER.IMS_PER_BATCH / world_size records (the training step cuts them for gradient
    accumulation).

    `loader.batch_sampler` has `set_epoch(epoch)`, to be called at the start of every epoch, and
    `skip(num_batches)`. `device` is where training goes on: the cache may be there, and then batches are.
    """
    shares = {"rank": rank, "world_size": world_size}
    if cfg.DATALOADER.SAMPLER in ("identity", "identity-once"):
        sampler = IdentityBatchSampler(
            [record.pid for record in records],
            num_instances=cfg.DATALOADER.NUM_INSTANCES,
            batch_size=cfg.SOLVER.IMS_PER_BATCH,
            seed=cfg.SEED,
            once=cfg.DATALOADER.SAMPLER == "identity-once",
            **shares,
        )
    elif cfg.DATALOADER.SAMPLER == "random":
        sampler = RandomBatchSampler(
            len(records), batch_size=cfg.SOLVER.IMS_PER_BATCH, seed=cfg.SEED, **shares
        )
    else:
        raise ValueError(
            f'DATALOADER.SAMPLER is "{cfg.DATALOADER.SAMPLER}"; choose identity, identity-once or random'
        )
    size, frames = tuple(cfg.INPUT.SIZE_TRAIN), cfg.INPUT.NUM_FRAMES
    paths = used_paths(records, num_frames=frames, sampling=cfg.INPUT.FRAME_SAMPLING)
    dataset = ReidDataset(
        records,
        size=size,
        interpolation=cfg.INPUT.INTERPOLATION,
        num_frames=frames,
        sampling=cfg.INPUT.FRAME_SAMPLING,
        cache=_build_cache(cfg, paths, size, world_size, device),
        seed=cfg.SEED,
        epoch=sampler.epoch,
    )
    return _create_loader(cfg, dataset, sampler, persistent=True)


def build_test_loader(
    cfg: CfgNode,
    records: Sequence[Record],
    *,
    rank: int = 0,
    world_size: int = 1,
    device: torch.device = CPU,
) -> DataLoader:
    """Every record once, in order, TEST.IMS_PER_BATCH at a time; each rank has a contiguous share.

    Tracklets give INPUT.NUM_FRAMES_TEST frames (0: as many as in training), images always one.
    """
    longest = max((len(record.paths) for record in records), default=1)
    size, frames = (
        tuple(cfg.INPUT.SIZE_TEST),
        min(cfg.INPUT.NUM_FRAMES_TEST or cfg.INPUT.NUM_FRAMES, longest),
    )
    sampler = TestBatchSampler(
        len(records), batch_size=cfg.TEST.IMS_PER_BATCH, rank=rank, world_size=world_size
    )
    paths = used_paths(records[sampler.first : sampler.last], num_frames=frames, sampling="even")
    dataset = ReidDataset(
        records,
        size=size,
        interpolation=cfg.INPUT.INTERPOLATION,
        num_frames=frames,
        cache=_build_cache(cfg, paths, size, world_size, device),
    )
    return _create_loader(cfg, dataset, sampler, persistent=False)


def _build_cache(
    cfg: CfgNode,
    paths: Sequence[Path],
    size: tuple[int, int],
    world_size: int,
    device: torch.device,
) -> ImageCache | None:
    place = choose_cache(
        len(set(paths)),
        size=size,
        mode=cfg.DATALOADER.CACHE,
        budget_gib=cfg.DATALOADER.CACHE_GIB,
        device=device,
        device_share=cfg.DATALOADER.CACHE_SHARE,
        copies=world_size,
    )
    if place is None:
        return None
    return ImageCache(paths, size=size, interpolation=cfg.INPUT.INTERPOLATION, device=place)


def _create_loader(cfg: CfgNode, dataset: ReidDataset, sampler, *, persistent: bool) -> DataLoader:
    """A loader that fetches whole batches. With a cache a batch is one gather, which no process need do for
    us.
    """
    workers = 0 if dataset.cache is not None else min(cfg.DATALOADER.NUM_WORKERS, num_cpus())
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=cfg.DEVICE != "cpu" and torch.cuda.is_available() and dataset.device == CPU,
        persistent_workers=persistent and workers > 0,
        worker_init_fn=_outlive_signals,
        generator=torch.Generator(),  # so that starting an epoch does not touch the global random state
    )


@contextmanager
def loader_processes(loader: DataLoader) -> Iterator[None]:
    """End the processes of a training loader on leaving; left to the garbage collector, each takes five seconds."""
    try:
        yield
    finally:
        iterator, loader._iterator = loader._iterator, None
        if iterator is not None:
            iterator._shutdown_workers()


def _outlive_signals(_worker: int) -> None:
    """Terminals and schedulers send SIGINT and SIGTERM to all processes of a run, and the main one wants to save first: a
    loader process stays for ten seconds then.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(10))


def build_normalization(cfg: CfgNode) -> Normalization:
    """uint8 images to the network's input, without augmentation."""
    return Normalization(cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD)


def build_augmentation(cfg: CfgNode) -> Augmentation:
    """The training augmentation of the INPUT section."""
    fills = {"mean": (0.0, 0.0, 0.0), "published": tuple(cfg.INPUT.PIXEL_MEAN)}
    if cfg.INPUT.RE_FILL not in fills:
        raise ValueError(f'INPUT.RE_FILL is "{cfg.INPUT.RE_FILL}"; choose mean or published')
    settings = AugmentationSettings(
        flip_prob=cfg.INPUT.FLIP_PROB,
        padding=cfg.INPUT.PADDING,
        erase_prob=cfg.INPUT.RE_PROB,
        erase_fill=fills[cfg.INPUT.RE_FILL],
        jitter_prob=cfg.INPUT.JITTER_PROB,
        jitter=tuple(cfg.INPUT.JITTER),
        autoaug_prob=cfg.INPUT.AUTOAUG_PROB,
        affine_prob=cfg.INPUT.AFFINE_PROB,
        augmix_prob=cfg.INPUT.AUGMIX_PROB,
        patch_prob=cfg.INPUT.PATCH_PROB,
        cutout_prob=cfg.INPUT.CUTOUT_PROB,
    )
    return Augmentation(build_normalization(cfg), settings)
