"""Build splits, loaders and augmentation from the configuration."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from ember_reid.data.adaptation.sampler import AdaptationSampler, UnlabeledRows
from ember_reid.data.adaptation.unlabeled import (
    Unlabeled,
    check_no_shared_files,
    load_unlabeled,
    test_spec,
)
from ember_reid.data.augment_fixed import FixedShapeAugmentation
from ember_reid.data.augment_settings import AugmentationSettings
from ember_reid.data.batch import Batch
from ember_reid.data.cache import CPU, choose_cache
from ember_reid.data.dataset import ImageCache, Normalization, ReidDataset, collate, used_paths
from ember_reid.data.datasets import LAYOUTS, read, resolve
from ember_reid.data.fastreid_samplers import CameraBalancedSampler, IdentityStreamSampler
from ember_reid.data.images import check_files, num_cpus
from ember_reid.data.loader_processes import delay_signals
from ember_reid.data.preparation import find_same_domain, index_by_name, leave_out_broken
from ember_reid.data.protocols import apply_protocol
from ember_reid.data.records import NO_PID, Record, Splits, merge_train, merged_classes
from ember_reid.data.round_samplers import DomainBalancedSampler
from ember_reid.data.samplers import (
    GlobalBatchSampler,
    IdentityBatchSampler,
    IdentityOnceSampler,
    PKSampler,
    RandomBatchSampler,
    split_batches,
)
from ember_reid.data.side_information import check_cameras, check_views
from ember_reid.data.validation import hold_out
from torch.utils.data import DataLoader
from yacs.config import CfgNode

logger = logging.getLogger("ember.data")

# DATALOADER.SAMPLER, except "random"
PK_SAMPLERS: dict[str, type[PKSampler]] = {
    "identity": IdentityBatchSampler,
    "identity-once": IdentityOnceSampler,
    "identity-fastreid": IdentityStreamSampler,
    "identity-cameras": CameraBalancedSampler,
    "identity-domains": DomainBalancedSampler,
}


@dataclass(frozen=True)
class DataBundle:
    """All data of a run.

    Attributes:
        train: the merged training records, with class indices 0..num_classes-1 as pids.
        num_classes: training identities; 1 without labeled images.
        tests: the test sets by name.
        validation: held-out training identities as test sets, by name (TEST.VALIDATION).
        classes: (dataset, its label of the identity) by class index.
        same_domain: names of the test sets that belong to a training dataset.
        unlabeled: the images of DATASETS.UNLABELED.
    """

    train: tuple[Record, ...]
    num_classes: int
    tests: dict[str, Splits]
    validation: dict[str, Splits]
    classes: tuple[tuple[str, str], ...] = ()
    same_domain: tuple[str, ...] = ()
    unlabeled: Unlabeled | None = None

    @property
    def records(self) -> tuple[Record, ...]:
        """All training records, labeled ones first."""
        return self.train if self.unlabeled is None else (*self.train, *self.unlabeled.records)


def build_splits(cfg: CfgNode, *, train: bool = True) -> DataBundle:
    """Read and check all datasets of the configuration; without `train` only the test sets.

    Raises:
        ValueError, OSError: the data cannot be used.
    """
    root = Path(cfg.DATASETS.ROOT)
    train_specs = tuple(cfg.DATASETS.NAMES) if train else ()
    withheld = [spec for name in cfg.DATASETS.UNLABELED if (spec := test_spec(name))]
    test_specs = tuple(cfg.DATASETS.TESTS) or (*withheld, *cfg.DATASETS.NAMES)
    loaded: dict[str, Splits] = {}
    for spec in dict.fromkeys((*train_specs, *test_specs)):
        source = resolve(spec, root)
        splits = read(source)
        if spec in train_specs and not splits.train:
            raise ValueError(
                f"{source.name} has no training images in {source.path};"
                f" expected there: {LAYOUTS[source.name].contents}"
            )
        loaded[spec] = replace(
            splits,
            train=splits.train if spec in train_specs else (),
            query=splits.query if spec in test_specs else (),
            gallery=splits.gallery if spec in test_specs else (),
        )
    if cfg.DATALOADER.SKIP_BROKEN:
        loaded = leave_out_broken(loaded)
    else:
        for splits in loaded.values():
            check_files([path for record in splits.records() for path in record.paths[:1]])
    check_cameras(list(loaded.values()), cfg.MODEL.SIE.CAMERAS)
    check_views(list(loaded.values()), cfg.MODEL.SIE.VIEWS)
    kept, held_out = _hold_out(cfg, [loaded[spec] for spec in train_specs])
    records = merge_train(kept)
    tests = index_by_name([apply_protocol(loaded[spec], cfg.TEST.PROTOCOL) for spec in test_specs])
    validation = index_by_name(held_out)
    specs = dict(zip(tests, test_specs, strict=True))
    return DataBundle(
        train=records,
        num_classes=1 + max((record.pid for record in records), default=0),
        tests=tests,
        validation=validation,
        classes=merged_classes(kept),
        same_domain=(*validation, *find_same_domain(specs, (*cfg.DATASETS.NAMES, *withheld), root)),
        unlabeled=_build_unlabeled(cfg, records) if train else None,
    )


def _build_unlabeled(cfg: CfgNode, train: Sequence[Record]) -> Unlabeled | None:
    """The images of DATASETS.UNLABELED; their cameras are numbered after those of `train`."""
    if not cfg.DATASETS.UNLABELED:
        return None
    found = load_unlabeled(cfg.DATASETS.UNLABELED, Path(cfg.DATASETS.ROOT))
    check_no_shared_files(train, found.records)
    check_files([path for record in found.records for path in record.paths])
    first = 1 + max((record.camid for record in train), default=-1)
    domain = 1 + max((record.domain for record in train), default=-1)
    shifted = (replace(r, camid=first + r.camid, domain=domain) for r in found.records)
    return replace(found, records=tuple(shifted))


def _hold_out(cfg: CfgNode, parts: list[Splits]) -> tuple[list[Splits], list[Splits]]:
    """Separate the held-out identities of TEST.VALIDATION: (datasets without them, test sets)."""
    fraction = cfg.TEST.VALIDATION
    if fraction == 0:
        return parts, []
    pairs = [hold_out(splits, fraction, seed=cfg.SEED) for splits in parts]
    return [kept for kept, _ in pairs], [held_out for _, held_out in pairs]


def build_train_loader(
    cfg: CfgNode,
    records: Sequence[Record],
    *,
    rank: int = 0,
    world_size: int = 1,
    device: torch.device = CPU,
) -> DataLoader[Batch]:
    """Training batches of SOLVER.IMS_PER_BATCH / world_size records.

    `loader.batch_sampler` has `set_epoch(epoch)`, to be called at the start of every epoch, and
    `skip(num_batches)`. `device` is the device of the training. If the images are cached there,
    batches are on it too. The training step splits batches for gradient accumulation.
    """
    sampler = build_train_sampler(cfg, records, rank=rank, world_size=world_size)
    size, frames = tuple(cfg.INPUT.SIZE_TRAIN), cfg.INPUT.NUM_FRAMES
    paths = used_paths(records, num_frames=frames, sampling=cfg.INPUT.FRAME_SAMPLING)
    dataset = ReidDataset(
        records,
        size=size,
        interpolation=cfg.INPUT.INTERPOLATION,
        num_frames=frames,
        sampling=cfg.INPUT.FRAME_SAMPLING,
        cache=_build_cache(cfg, paths, size, world_size=world_size, device=device),
        seed=cfg.SEED,
        epoch=sampler.epoch,
    )
    return _create_loader(cfg, dataset, sampler, persistent=True)


def build_train_sampler(
    cfg: CfgNode, records: Sequence[Record], *, rank: int = 0, world_size: int = 1
) -> GlobalBatchSampler:
    """The sampler of DATALOADER.SAMPLER; with unlabeled records, they are half of each batch."""
    labeled = [record for record in records if record.pid != NO_PID]
    batch_size = cfg.SOLVER.IMS_PER_BATCH
    if len(labeled) == len(records):
        return _build_labeled_sampler(cfg, records, batch_size, rank=rank, world_size=world_size)
    num_labeled = batch_size // 2 if labeled else 0
    return AdaptationSampler(
        _build_labeled_sampler(cfg, labeled, num_labeled) if labeled else None,
        [record.pid for record in records],
        [record.camid for record in records],
        UnlabeledRows(
            batch_size=batch_size - num_labeled,
            num_instances=cfg.DATALOADER.NUM_INSTANCES,
            num_steps=cfg.ADAPT.ITERS,
            use_outliers=cfg.ADAPT.METHOD == "spcl",
        ),
        seed=cfg.SEED,
        rank=rank,
        world_size=world_size,
    )


def _build_labeled_sampler(
    cfg: CfgNode,
    records: Sequence[Record],
    batch_size: int,
    *,
    rank: int = 0,
    world_size: int = 1,
) -> GlobalBatchSampler:
    """The sampler of DATALOADER.SAMPLER; config/validate.py checks the name."""
    if cfg.DATALOADER.SAMPLER == "random":
        return RandomBatchSampler(
            len(records), batch_size=batch_size, seed=cfg.SEED, rank=rank, world_size=world_size
        )
    return PK_SAMPLERS[cfg.DATALOADER.SAMPLER](
        [record.pid for record in records],
        [record.camid for record in records],
        domains=[record.domain for record in records],
        num_instances=cfg.DATALOADER.NUM_INSTANCES,
        batch_size=batch_size,
        seed=cfg.SEED,
        rank=rank,
        world_size=world_size,
    )


def build_test_loader(
    cfg: CfgNode,
    records: Sequence[Record],
    *,
    rank: int = 0,
    world_size: int = 1,
    device: torch.device = CPU,
) -> DataLoader[Batch]:
    """Every record once, in order, in batches of TEST.IMS_PER_BATCH; contiguous parts per rank.

    Tracklets have INPUT.NUM_FRAMES_TEST frames (0: as many as in training), images always one.
    """
    longest = max((len(record.paths) for record in records), default=1)
    frames = min(cfg.INPUT.NUM_FRAMES_TEST or cfg.INPUT.NUM_FRAMES, longest)
    size = tuple(cfg.INPUT.SIZE_TEST)
    batches = split_batches(
        len(records), batch_size=cfg.TEST.IMS_PER_BATCH, rank=rank, world_size=world_size
    )
    own = [records[index] for batch in batches for index in batch]
    paths = used_paths(own, num_frames=frames, sampling="even")
    dataset = ReidDataset(
        records,
        size=size,
        interpolation=cfg.INPUT.INTERPOLATION,
        num_frames=frames,
        cache=_build_cache(cfg, paths, size, world_size=world_size, device=device),
    )
    return _create_loader(cfg, dataset, batches, persistent=False)


def _build_cache(
    cfg: CfgNode,
    paths: Sequence[Path],
    size: tuple[int, int],
    *,
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


def _create_loader(
    cfg: CfgNode, dataset: ReidDataset, sampler: Iterable[list[int]], *, persistent: bool
) -> DataLoader[Batch]:
    """A loader that fetches whole batches.

    With a cache a batch is one gather, which is faster in this process than in a loader process.
    """
    workers = 0 if dataset.cache is not None else min(cfg.DATALOADER.NUM_WORKERS, num_cpus())
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=cfg.DEVICE != "cpu" and torch.cuda.is_available() and dataset.device == CPU,
        persistent_workers=persistent and workers > 0,
        worker_init_fn=delay_signals,
        # With its own generator, starting an epoch does not change the global random state.
        generator=torch.Generator(),
    )


def build_normalization(cfg: CfgNode) -> Normalization:
    """uint8 images to the network's input, without augmentation."""
    return Normalization(cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD)


def build_augmentation(cfg: CfgNode) -> FixedShapeAugmentation:
    """The training augmentation of the INPUT section; config/validate.py checks INPUT.RE_FILL."""
    fills = {"mean": (0.0, 0.0, 0.0), "published": tuple(cfg.INPUT.PIXEL_MEAN)}
    settings = AugmentationSettings(
        flip_prob=cfg.INPUT.FLIP_PROB,
        padding=cfg.INPUT.PADDING,
        erase_prob=cfg.INPUT.RE_PROB,
        erase_aspect=tuple(cfg.INPUT.RE_ASPECT),
        erase_fill=fills[cfg.INPUT.RE_FILL],
        jitter_prob=cfg.INPUT.JITTER_PROB,
        jitter=tuple(cfg.INPUT.JITTER),
        autoaug_prob=cfg.INPUT.AUTOAUG_PROB,
        autoaug_decay=cfg.INPUT.AUTOAUG_DECAY,
        affine_prob=cfg.INPUT.AFFINE_PROB,
        augmix_prob=cfg.INPUT.AUGMIX_PROB,
        patch_prob=cfg.INPUT.PATCH_PROB,
    )
    return FixedShapeAugmentation(build_normalization(cfg), settings)
