r"""Show which image regions embeddings depend on: Grad-CAM of several networks side by side.

    python -m tools.heatmaps --models runs/quickstart/checkpoints/best.pt --out heatmaps
    python -m tools.heatmaps --models runs/quickstart/checkpoints/best.pt \
        runs/quickstart/checkpoints/last.pt --what identities --count 3 --out heatmaps

`pairs` explains the cosine between a query and a match in the gallery, in both images. `identities`
explains the largest logit of each network for images of test identities. Writes DIR/index.html,
which contains its images, and DIR/NNN.png, one per row. The test set comes from the recipe (-c), by
default the recipe of the first network. Each network receives images at its own input size.
"""

import argparse
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from ember_reid.config import load_config, parse_config
from ember_reid.data.build import build_normalization, build_splits
from ember_reid.data.images import load_image, open_image
from ember_reid.data.records import Record, Splits
from ember_reid.engine.build import build_device, read_test_config
from ember_reid.engine.checkpoint import load_checkpoint
from ember_reid.engine.files import replaced_file
from ember_reid.engine.handlers.logs import setup_logging
from ember_reid.engine.plugins import check_plugins
from ember_reid.modeling import build_model
from ember_reid.tools.common.cli import Command, echo
from ember_reid.tools.common.html import Figure, Section, image_source, write_gallery
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

CHOICES = ("identities", "pairs")
MAX_CLASSES = 10**7
HEIGHT, GAP, OPACITY = 192, 6, 0.45


@dataclass(frozen=True)
class Network:
    """A trained network and the format of its images."""

    name: str
    model: nn.Module
    size: tuple[int, int]
    interpolation: str
    normalize: Callable[[Tensor], Tensor]
    device: torch.device


@dataclass(frozen=True)
class Row:
    """A row of images with captions."""

    title: str
    images: tuple[Image.Image, ...]
    captions: tuple[str, ...]


def grad_cam(model: nn.Module, images: Tensor, score: Callable[..., Tensor]) -> Tensor:
    """Image regions that a score depends on (Grad-CAM, Selvaraju et al. 2017, eq. 1-2).

    Works for every backbone that ends in a feature map: convolutional networks, and transformers,
    whose tokens the model arranges in a grid. If a head uses several maps (MGN), their heatmaps are
    averaged. No graph is built through the backbone.

    Args:
        model: a ReidModel in evaluation mode.
        images: float [N, 3, H, W], normalized.
        score: maps a ReidOutput to a tensor, whose sum is explained.

    Returns:
        [N, H, W] in [0, 1] with a maximum of 1 per image; all 0 if no region contributes. Departure
        from the paper: the weighted sum can be negative everywhere, because the neck subtracts a
        mean that the maps do not contain. In this case, its minimum is subtracted instead of
        applying the ReLU.
    """
    with torch.no_grad():
        maps = cast(Callable[[Tensor], tuple[Tensor, ...]], model.backbone)(images)
    maps = tuple(value.detach().requires_grad_() for value in maps)
    with torch.enable_grad():
        total = score(cast(Callable[..., object], model.head)(maps)).sum()
    gradients = torch.autograd.grad(total, maps, allow_unused=True)
    heat = []
    for value, gradient in zip(maps, gradients, strict=True):
        if gradient is not None:
            # A class token has no position: its gradient weights the channels of the patches.
            value = maps[0] if len(maps) > 1 and value.shape[2:] == (1, 1) else value
            # [N, C, 1, 1]
            weights = gradient.mean(dim=(2, 3), keepdim=True)
            # [N, 1, h, w]
            cam = (weights * value).sum(dim=1, keepdim=True)
            lowest, highest = cam.amin(dim=(2, 3), keepdim=True), cam.amax(dim=(2, 3), keepdim=True)
            cam = torch.where(highest > 0, cam.relu(), cam - lowest)
            heat.append(
                F.interpolate(cam, size=images.shape[2:], mode="bilinear", align_corners=False)
            )
    mean = torch.cat(heat, dim=1).mean(dim=1).detach()
    return mean / mean.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)


def strongest_logit(output) -> Tensor:
    """[N]: the largest logit, averaged over heads."""
    return torch.stack([logits.amax(dim=1) for logits in output.logits]).mean(dim=0)


def pair_cosine(output) -> Tensor:
    """The cosine between the embeddings of the first and the second image."""
    return F.cosine_similarity(output.embedding[:1], output.embedding[1:2])


def overlay(image: Image.Image, heat: Tensor) -> Image.Image:
    """Blend an image with a heatmap [h, w] in [0, 1], from blue (0) to red (1)."""
    gray = Image.fromarray((255 * heat.cpu().numpy()).astype(np.uint8)).resize(
        image.size, Image.Resampling.BILINEAR
    )
    value = np.asarray(gray, dtype=np.float32)[..., None] / 255
    color = 255 * np.clip(1.5 - np.abs(4 * value - np.array([3.0, 2.0, 1.0])), 0, 1)
    mixed = (1 - OPACITY) * np.asarray(image, dtype=np.float32) + OPACITY * color
    return Image.fromarray(mixed.round().astype(np.uint8))


def load_networks(paths: Sequence[str], device: torch.device) -> list[Network]:
    """Load checkpoints that contain their recipe; they are named after their run."""
    networks = []
    for path in paths:
        content = load_checkpoint(path)
        cfg = parse_config(content.get("config", ""))
        check_plugins(cfg.IMPORTS, source=path)
        num_classes = content.get("num_classes")
        if type(num_classes) is not int or not 0 < num_classes <= MAX_CLASSES:
            raise ValueError(f"{path} is damaged: num_classes is {str(num_classes)[:60]}")
        model = build_model(cfg, num_classes=num_classes, pretrained=False)
        try:
            # The classifier is needed by `identities`.
            model.load_state_dict(content["model"])
        except (KeyError, RuntimeError, TypeError, AttributeError, ValueError) as error:
            reason = str(error).strip().splitlines()[-1].strip()
            raise ValueError(f"the weights of {path} do not fit its recipe: {reason}") from error
        model = model.to(device).eval().requires_grad_(False)
        folder = Path(path).parent
        name = folder.parent.name if folder.name == "checkpoints" else Path(path).stem
        networks.append(
            Network(
                name,
                model,
                tuple(cfg.INPUT.SIZE_TEST),
                cfg.INPUT.INTERPOLATION,
                build_normalization(cfg),
                device,
            )
        )
    return networks


def _prepare(network: Network, paths: Sequence[Path]) -> Tensor:
    images = [
        load_image(path, size=network.size, interpolation=network.interpolation) for path in paths
    ]
    return network.normalize(torch.stack(images).to(network.device))


def _load_thumbnail(path: Path) -> Image.Image:
    image = open_image(path)
    return image.resize((max(round(image.width * HEIGHT / image.height), 1), HEIGHT))


def identity_rows(
    splits: Splits, networks: Sequence[Network], *, count: int, seed: int
) -> list[Row]:
    """One row per identity: up to four query images with the heatmaps of each network."""
    by_pid: dict[int, list[Record]] = {}
    for record in splits.query:
        by_pid.setdefault(record.pid, []).append(record)
    chosen = random.Random(seed).sample(sorted(by_pid), min(count, len(by_pid)))
    rows = []
    for pid in chosen:
        paths = [record.paths[0] for record in by_pid[pid][:4]]
        heats = [grad_cam(n.model, _prepare(n, paths), strongest_logit) for n in networks]
        thumbnails, captions = [], []
        for i, path in enumerate(paths):
            thumbnail = _load_thumbnail(path)
            thumbnails += [thumbnail, *[overlay(thumbnail, heat[i]) for heat in heats]]
            captions += [path.name, *[network.name for network in networks]]
        rows.append(Row(f"identity {pid}", tuple(thumbnails), tuple(captions)))
    return rows


def pair_rows(splits: Splits, networks: Sequence[Network], *, count: int, seed: int) -> list[Row]:
    """One row per query and its match, from another camera if possible, with their heatmaps."""
    rng = random.Random(seed)
    rows: list[Row] = []
    for query in rng.sample(list(splits.query), len(splits.query)):
        matches = [r for r in splits.gallery if r.pid == query.pid and r.paths[0] != query.paths[0]]
        others = [record for record in matches if record.camid != query.camid] or matches
        if not others or len(rows) == count:
            continue
        match = rng.choice(others)
        paths = [query.paths[0], match.paths[0]]
        thumbnails, captions = (
            [_load_thumbnail(path) for path in paths],
            [f"camera {r.camid + 1}" for r in (query, match)],
        )
        shown = list(thumbnails)
        for network in networks:
            images = _prepare(network, paths)
            heat = grad_cam(network.model, images, pair_cosine)
            with torch.no_grad():
                cosine = pair_cosine(network.model(images)).item()
            shown += [overlay(image, heat[i]) for i, image in enumerate(thumbnails)]
            captions += [f"{network.name}: cosine {cosine:.2f}", ""]
        rows.append(Row(f"identity {query.pid}", tuple(shown), tuple(captions)))
    return rows


def join(images: Sequence[Image.Image]) -> Image.Image:
    """Join images of the same height side by side."""
    width = sum(image.width for image in images) + GAP * (len(images) - 1)
    sheet = Image.new("RGB", (width, HEIGHT), "white")
    left = 0
    for image in images:
        sheet.paste(image, (left, 0))
        left += image.width + GAP
    return sheet


def write_page(rows: Sequence[Row], path: Path, *, title: str) -> None:
    """Write the rows as an HTML page, which contains its images."""
    sections = [
        Section(
            row.title,
            tuple(
                Figure(image_source(image), "", (caption,))
                for image, caption in zip(row.images, row.captions, strict=True)
            ),
        )
        for row in rows
    ]
    facts = ["Colors: blue means no influence, red means the largest influence."]
    write_gallery(path, sections, title=title, facts=facts, wide=True)


def draw_heatmaps(arguments: argparse.Namespace) -> list[Path]:
    """Choose the images, explain them and write the pages; return the files written."""
    if arguments.count < 1:
        raise ValueError(f"--count is {arguments.count}, it must be at least 1")
    if arguments.config:
        cfg = load_config(arguments.config, arguments.overrides)
    else:
        cfg = read_test_config(None, ["TEST.WEIGHT", arguments.models[0], *arguments.overrides])
    device = build_device(cfg)
    splits = next(iter(build_splits(cfg, train=False).tests.values()))
    networks = load_networks(arguments.models, device)
    arguments.out.mkdir(parents=True, exist_ok=True)
    create = {"identities": identity_rows, "pairs": pair_rows}[arguments.what]
    rows = create(splits, networks, count=arguments.count, seed=cfg.SEED)
    written = []
    for number, row in enumerate(rows, start=1):
        written.append(arguments.out / f"{number:03d}.png")
        with replaced_file(written[-1]) as draft:
            join(row.images).save(draft)
    title = (
        f"{arguments.what} of {splits.name}: {' and '.join(network.name for network in networks)}"
    )
    write_page(rows, arguments.out / "index.html", title=title)
    return [arguments.out / "index.html", *written]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("-c", "--config", metavar="FILE", help="a recipe with the test set")
    parser.add_argument(
        "--models", nargs="+", required=True, metavar="CHECKPOINT", help="checkpoints to compare"
    )
    parser.add_argument("--what", choices=CHOICES, default="pairs", help="default: %(default)s")
    parser.add_argument("--count", type=int, default=10, help="rows (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write")
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        dest="overrides",
        metavar="WORD",
        help="KEY VALUE pairs of the recipe",
    )


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    setup_logging()
    echo(draw_heatmaps(options)[0])


main = Command("heatmaps", __doc__ or "", add_options, run).main
