r"""Add images to a gallery.

    python -m tools.gallery add people.db weights=runs/quickstart/checkpoints/best.pt \
        --ids folder known/
    python -m tools.gallery add people.db --name Anna anna1.jpg anna2.jpg
    python -m tools.gallery add people.db --identify new/ --threshold 0.3

The first call creates the file and needs the weights, later calls use the same network. The
identity of an image is --name, its folder or the start of its file name (--ids), or the column
`pid` of a CSV file. --identify adds each image to the nearest identity instead, or to a new one if
none is within the threshold. Images that cannot be read are left out and counted. The same command
can be repeated: images that the identity already has are not added again.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ember_reid.engine.deploy.embedder import Embedder
from ember_reid.engine.handlers.logs import setup_logging
from ember_reid.tools.common.cli import Command, add_recipe, check_at_least, echo
from ember_reid.tools.common.inputs import IDS, ImageFile, read_images, split_overrides
from ember_reid.tools.common.model_arguments import add_threshold_argument, add_trust_argument
from ember_reid.tools.common.stored_network import (
    check_same_network,
    choose_threshold,
    open_network,
    reopen_network,
)
from ember_reid.tools.extract.command import embed_images
from ember_reid.tools.gallery.store import Entry, Gallery, check_name

# Images that are embedded at a time and added as one transaction.
CHUNK = 128


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_recipe(parser)
    parser.add_argument("gallery", type=Path, metavar="FILE", help="the gallery")
    parser.add_argument("--name", help="the identity on all images")
    parser.add_argument("--ids", default="none", help=f"where identities come from: {IDS}")
    parser.add_argument(
        "--identify", action="store_true", help="add each image to the nearest identity"
    )
    add_threshold_argument(parser)
    parser.add_argument("--camera", default="", help="the camera of images without one")
    parser.add_argument("--batch", type=int, default=64, help="(default: %(default)s)")
    add_trust_argument(parser)
    parser.add_argument(
        "words",
        nargs="*",
        metavar="KEY VALUE | IMAGES",
        help="TEST.WEIGHT FILE (or weights=FILE), other keys, and images, folders or csv lists",
    )


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    setup_logging()
    check_at_least(options, batch=1)
    keys, sources = split_overrides(options.words)
    if not sources:
        raise ValueError("no images are named: give files, folders or csv lists")
    images = read_images(sources, ids=options.ids)
    _check_names(options, images)
    embedder, gallery = open_gallery(options, keys)
    with gallery:
        threshold = choose_threshold(options.threshold, gallery.network)
        if options.identify and threshold is None:
            raise ValueError(
                "--identify needs a threshold: calibrate the network (ember-reid calibrate), or "
                "give --threshold DISTANCE"
            )
        for line in add_images(options, images, embedder, gallery, threshold or 0.0):
            echo(line)


def _check_names(options: argparse.Namespace, images: Sequence[ImageFile]) -> None:
    """Raise ValueError unless every image has an identity, or will get one."""
    if options.name is not None and options.identify:
        raise ValueError("--name and --identify exclude each other")
    if options.identify:
        return
    if options.name is not None:
        check_name(options.name)
        return
    for image in images:
        if not image.pid:
            raise ValueError(
                f"the identity on {image.path} is not known: give --name NAME, --ids folder, --ids "
                "prefix, a csv list with a column pid, or --identify"
            )
        check_name(image.pid)


def open_gallery(options: argparse.Namespace, keys: Sequence[str]) -> tuple[Embedder, Gallery]:
    """Open the gallery with its network, or create it with the network of TEST.WEIGHT."""
    named = "TEST.WEIGHT" in keys[::2]
    if options.gallery.exists() and not named:
        gallery = Gallery(options.gallery)
        return reopen_network(gallery.network, options.gallery, trust=options.trust), gallery
    if not named:
        raise FileNotFoundError(
            f"there is no gallery {options.gallery}; to create it, name the network with "
            "weights=FILE"
        )
    embedder, network = open_network(keys, recipe=options.config, trust=options.trust)
    with suppress(FileExistsError):
        return embedder, Gallery.create(options.gallery, network)
    gallery = Gallery(options.gallery)
    check_same_network(gallery.metadata, embedder.metadata, options.gallery, network.weights)
    return embedder, gallery


def add_images(
    options: argparse.Namespace,
    images: Sequence[ImageFile],
    embedder: Embedder,
    gallery: Gallery,
    threshold: float,
) -> list[str]:
    """Embed and add the images; returns lines for the user."""
    lines, num_added, new_names = [], 0, Counter[bool]()
    for first in range(0, len(images), CHUNK):
        chunk = images[first : first + CHUNK]
        part = embed_images(chunk, embedder, options.batch)
        lines += [
            f"left out: {chunk[position].path}: {reason}"
            for position, reason in zip(part["broken"], part["reasons"], strict=True)
        ]
        by_name: dict[str, list[Entry]] = {}
        for position, embedding in zip(part["positions"], part["embeddings"], strict=True):
            image = chunk[position]
            entry = Entry(embedding, image.camid or options.camera, str(image.path.resolve()))
            if options.identify:
                name, is_new = gallery.identify(entry, threshold=threshold)
                new_names[is_new] += 1
                lines.append(f"{image.path}: {name}{' (new)' if is_new else ''}")
            else:
                by_name.setdefault(options.name or image.pid, []).append(entry)
        num_added += gallery.add_all(by_name)
    snapshot = gallery.snapshot()
    done = (
        f"{new_names[False]} images of known identities, {new_names[True]} of new ones"
        if options.identify
        else f"{num_added} images added"
    )
    return [
        *lines,
        f"{done}; {gallery.path} contains {len(snapshot.owners)} images of "
        f"{len(snapshot.names)} identities",
    ]


main = Command(
    "gallery add", __doc__ or "", add_options, run, interrupted="interrupted; run it again"
).main
