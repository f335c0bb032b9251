"""Build what the unlabeled images of DATASETS.UNLABELED add to a training."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import ignite.distributed as idist
import torch
from ember_reid.config import Config
from ember_reid.data.adaptation.sampler import AdaptationSampler
from ember_reid.data.build import (
    DataBundle,
    build_augmentation,
    build_normalization,
    build_test_loader,
)
from ember_reid.data.dataset import ReidDataset
from ember_reid.data.records import Record
from ember_reid.engine.adapt.clustering import ClusteringOptions
from ember_reid.engine.adapt.embedding import ImageSet, mirror, sample_items
from ember_reid.engine.adapt.losses import (
    AdaptationLoss,
    CameraProxies,
    ClusterContrast,
    HybridContrast,
    RowsLoss,
)
from ember_reid.engine.adapt.mutual import MutualMeanTeaching, MutualOptions
from ember_reid.engine.adapt.pseudo_labels import PseudoLabels, Target
from ember_reid.engine.build import build_amp_dtype
from ember_reid.engine.evaluator import EmbeddingAccumulator, create_evaluator
from ember_reid.engine.handlers.batch import Augment
from ember_reid.engine.handlers.ema import EMA
from ember_reid.engine.handlers.writers import MetricWriter
from ember_reid.engine.losses.build import build_weighted_losses
from ember_reid.engine.losses.criterion import Criterion, WeightedLoss
from ember_reid.evaluate import ClusterSettings
from ember_reid.layers.contrast import cluster_centers
from ember_reid.layers.domain_norm import separate_norms
from ember_reid.modeling import build_model, load_weights
from torch import Tensor, nn
from torch.utils.data import DataLoader

# Images whose mirror images are compared with the clusters.
NUM_MIRRORED = 1000


def build_adaptation_loss(
    cfg: Config, data: DataBundle, model: nn.Module, device: torch.device
) -> AdaptationLoss:
    """The loss of ADAPT.METHOD.

    Args:
        model: the network that embeds labeled images, for the memory of SpCL.
    """
    adapt = cfg.ADAPT
    num_rows = count_labeled_rows(cfg, data)
    if adapt.METHOD == "spcl":
        return HybridContrast(
            num_rows,
            first_index=len(data.train),
            source_centers=partial(_embed_classes, cfg, data, model, device),
            temperature=adapt.TEMPERATURE,
            momentum=adapt.MOMENTUM,
        )
    if adapt.METHOD == "mmt":
        return _build_mutual(cfg, data, device)
    if adapt.METHOD == "cap":
        return CameraProxies(
            slice(num_rows, None),
            first_index=len(data.train),
            camids=_target_cameras(data),
            temperature=adapt.TEMPERATURE,
            momentum=adapt.MOMENTUM,
            inter_start=adapt.CAP.START,
            num_negatives=adapt.CAP.NEGATIVES,
        )
    return ClusterContrast(
        slice(num_rows, None),
        first_label=data.num_classes,
        temperature=adapt.TEMPERATURE,
        momentum=adapt.MOMENTUM,
        hardest=adapt.UPDATE == "hardest",
    )


def _build_mutual(cfg: Config, data: DataBundle, device: torch.device) -> MutualMeanTeaching:
    """The second student, with its initial weights, and the losses of both.

    Raises:
        ValueError: there are several processes, which do not share the second student.
    """
    if idist.get_world_size() > 1:
        raise ValueError("ADAPT.METHOD mmt needs a single process: set NUM_PROCESSES 1")
    second = build_model(cfg, num_classes=data.num_classes)
    weights = cfg.ADAPT.MMT.WEIGHTS or cfg.ADAPT.WEIGHTS
    if weights:
        load_weights(second, weights)
    mmt, num = cfg.ADAPT.MMT, len(data.records) - len(data.train)
    return MutualMeanTeaching(
        slice(count_labeled_rows(cfg, data), None),
        MutualOptions(cfg.LOSS.CE.EPSILON, mmt.SOFT_CE, mmt.SOFT_TRIPLET),
        first_label=data.num_classes,
        second=second.to(device).to(memory_format=torch.channels_last),
        dim=cast(int, second.head.dim),
        max_clusters=num // 2 + 1,
        decay=cfg.SOLVER.EMA_DECAY,
        augment=Augment(build_augmentation(cfg), seed=cfg.SEED + 3, rank=0, world_size=1),
    )


def connect_mutual(
    cfg: Config,
    data: DataBundle,
    loss: AdaptationLoss | None,
    average: EMA,
    optimizer: torch.optim.Optimizer,
) -> None:
    """Let the optimizer train the second student, and cluster the features of both averages."""
    if not isinstance(loss, MutualMeanTeaching) or data.unlabeled is None:
        return
    _train_too(cfg, loss.trained, optimizer)
    device = next(average.model.parameters()).device
    networks = (average.model, cast(nn.ModuleDict, loss.average.model)["network"])
    records = data.unlabeled.records
    sets = [_build_image_set(cfg, records, network, device) for network in networks]
    loss.connect(
        optimizer=optimizer,
        first_average=average.model,
        embed=lambda: nn.functional.normalize(sets[0].embed() + sets[1].embed()),
    )


def _train_too(cfg: Config, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Add the parameters of a module to an optimizer, with the settings of its first group."""
    settings = {k: v for k, v in optimizer.param_groups[0].items() if k != "params"}
    settings["weight_decay"] = cfg.SOLVER.WEIGHT_DECAY_NORM
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer.add_param_group({**settings, "params": trained})


def _target_cameras(data: DataBundle) -> Tensor:
    """The cameras of the unlabeled images, int64 [N].

    Raises:
        ValueError: there are none, or a single one.
    """
    if data.unlabeled is None or not data.unlabeled.has_cameras:
        raise ValueError(
            "ADAPT.METHOD cap needs the cameras of the unlabeled images, and there is a single one "
            "or none: use a CSV with a column camid, a folder per camera, or another method"
        )
    return torch.tensor([record.camid for record in data.unlabeled.records])


def count_labeled_rows(cfg: Config, data: DataBundle) -> int:
    """The labeled rows at the start of the batch of each process: half of them, or none."""
    return cfg.SOLVER.IMS_PER_BATCH // 2 // idist.get_world_size() if data.train else 0


def build_adapted_criterion(
    cfg: Config, data: DataBundle, loss: AdaptationLoss, *, feature_dim: int
) -> Criterion:
    """The losses of the LOSS section for labeled rows, and that of unlabeled rows."""
    rows = slice(None, count_labeled_rows(cfg, data))
    supervised: dict[str, WeightedLoss] = {}
    if data.train:
        supervised = build_weighted_losses(
            cfg, num_classes=data.num_classes, feature_dim=feature_dim
        )
    terms = {
        name: replace(term, function=RowsLoss(term.function, rows))
        for name, term in supervised.items()
    }
    return Criterion(terms | {cfg.ADAPT.METHOD: WeightedLoss(cfg.ADAPT.WEIGHT, loss)})


def build_domain_norms(
    cfg: Config, model: nn.Module, optimizer: torch.optim.Optimizer
) -> nn.ModuleList | None:
    """Separate batch norms for labeled images (ADAPT.DOMAIN_NORM), which the optimizer trains.

    Raises:
        ValueError: there are several processes, which do not share these batch norms.
    """
    if not (cfg.DATASETS.UNLABELED and cfg.ADAPT.DOMAIN_NORM):
        return None
    if idist.get_world_size() > 1:
        raise ValueError("ADAPT.DOMAIN_NORM needs a single process: set NUM_PROCESSES 1")
    norms = separate_norms(model)
    _train_too(cfg, norms, optimizer)
    return norms


def build_pseudo_labels(
    cfg: Config,
    data: DataBundle,
    loss: AdaptationLoss | None,
    *,
    average: EMA,
    loader: DataLoader,
    norms: nn.ModuleList | None,
    writer: MetricWriter,
) -> PseudoLabels | None:
    """The handler that clusters the unlabeled images; None without them.

    Args:
        average: its network embeds the images: the running average, or the trained network itself.
        loader: of the training.
        norms: see `build_domain_norms`.
    """
    if data.unlabeled is None or loss is None:
        return None
    records, clusters = data.unlabeled.records, cfg.ADAPT.CLUSTER
    embedding = average.model
    device = next(embedding.parameters()).device
    sample = sample_items(len(records), NUM_MIRRORED)
    return PseudoLabels(
        Target(
            records=data.records,
            tracks=data.unlabeled.tracks,
            images=_build_image_set(cfg, records, embedding, device),
            mirrored=_build_image_set(
                cfg, [records[item] for item in sample.tolist()], embedding, device, mirrored=True
            ),
            sample=sample,
            dataset=cast(ReidDataset, loader.dataset),
            sampler=cast(AdaptationSampler, loader.batch_sampler),
            first_label=data.num_classes,
        ),
        ClusteringOptions(
            ClusterSettings(clusters.ALGORITHM, clusters.RADIUS, clusters.MIN_SAMPLES),
            k1=clusters.K1,
            k2=clusters.K2,
            gap=clusters.RADIUS_GAP if cfg.ADAPT.METHOD == "spcl" else None,
            center_cameras=clusters.CENTER_CAMERAS,
            memory_gib=cfg.TEST.MEMORY_GIB,
        ),
        loss,
        trained=average.trained,
        norms=norms,
        period=cfg.ADAPT.PERIOD,
        folder=Path(cfg.OUTPUT_DIR),
        writer=writer,
    )


def _build_image_set(
    cfg: Config,
    records: tuple[Record, ...] | list[Record],
    model: nn.Module,
    device: torch.device,
    *,
    mirrored: bool = False,
) -> ImageSet:
    """Images with the preprocessing and the evaluator of a test set."""
    normalize = build_normalization(cfg)
    evaluator = create_evaluator(
        model,
        mirror(normalize) if mirrored else normalize,
        device=device,
        amp_dtype=build_amp_dtype(cfg, device),
        flip=cfg.TEST.FLIP and not mirrored,
    )
    accumulator = EmbeddingAccumulator()
    accumulator.attach(evaluator)
    loader = build_test_loader(
        cfg, records, rank=idist.get_rank(), world_size=idist.get_world_size(), device=device
    )
    return ImageSet(evaluator, accumulator, loader)


def _embed_classes(cfg: Config, data: DataBundle, model: nn.Module, device: torch.device) -> Tensor:
    """The center of each labeled identity, [C, D]; [0, D] without labeled images."""
    records = data.train or data.records[:1]
    embeddings = _build_image_set(cfg, records, model, device).embed()
    labels = torch.tensor([record.pid for record in records], device=embeddings.device)
    return cluster_centers(embeddings, labels, data.num_classes if data.train else 0)
