r"""Propose identities of unlabeled crops, and correct them on a page.

    python -m tools.label /data/crops weights=runs/x/checkpoints/best.pt --out labels
    python -m tools.label datasets/quickstart/market1501/bounding_box_test \
        weights=runs/quickstart/checkpoints/best.pt --out labels --ids prefix --score

Images are files, folders, or CSV files with a column `path` and, if known, `camid` and `track`.
Folders directly in a folder are cameras, if it contains no images itself. The images are embedded
and clustered by the Jaccard distances of their k-reciprocal neighbors. Images of one track have one
identity.

Writes OUT/labels.csv (the proposed identities with confidences) and OUT/index.html, a page to
merge, split and reject identities in a browser, which saves a corrected CSV file. Train on either
with data=csv:FILE. See docs/how-to/label.md.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from ember_reid.engine.deploy.embedder import Embedder
from ember_reid.engine.handlers.logs import setup_logging
from ember_reid.evaluate import ALGORITHMS, OUTLIER, ClusterSettings
from ember_reid.tools.common.cli import Command, add_recipe, check_at_least, echo
from ember_reid.tools.common.inputs import IDS, ImageFile, read_images, split_overrides
from ember_reid.tools.common.model_arguments import add_trust_argument
from ember_reid.tools.common.stored_network import open_network
from ember_reid.tools.extract.chunks import embed_chunks
from ember_reid.tools.label.output import PAGE, check_new_folder, write_labels
from ember_reid.tools.label.proposal import propose
from ember_reid.tools.label.score import check_identities, score_proposal


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_recipe(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="OUT", help="a new folder")
    parser.add_argument(
        "--algorithm",
        default="agglomeration",
        help=f"{' | '.join(ALGORITHMS)} (default %(default)s)",
    )
    parser.add_argument(
        "--radius",
        type=float,
        default=0.4,
        help="largest Jaccard distance in 0..1: of two identities that are merged (mean), or of "
        "neighbors with dbscan (default %(default)s)",
    )
    parser.add_argument(
        "--min-images", type=int, default=2, help="of an identity (default %(default)s)"
    )
    parser.add_argument(
        "--k1",
        type=int,
        default=20,
        help="neighbors of an image, about as many as an identity has images (default %(default)s)",
    )
    parser.add_argument(
        "--k2", type=int, default=6, help="neighbors that are averaged (default %(default)s)"
    )
    parser.add_argument(
        "--test-share",
        type=float,
        default=0.2,
        help="share of the identities that are test data (default %(default)s)",
    )
    parser.add_argument(
        "--show", type=int, default=5000, help="thumbnails on the page (default %(default)s)"
    )
    parser.add_argument("--score", action="store_true", help="compare with the true identities")
    parser.add_argument(
        "--ids", default="none", help=f"where true identities come from: {' | '.join(IDS)}"
    )
    parser.add_argument(
        "--skip-broken", action="store_true", help="leave out images that cannot be read"
    )
    add_trust_argument(parser)
    parser.add_argument(
        "--batch", type=int, default=64, help="images at a time (default %(default)s)"
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="IMAGES | KEY VALUE",
        help="images, TEST.WEIGHT FILE, and other keys",
    )


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    setup_logging()
    for line in label(options):
        echo(line)


def label(options: argparse.Namespace) -> Iterator[str]:
    """Propose identities and write the files; yields lines for the user.

    Raises:
        FileNotFoundError, ValueError: options or files that cannot be used.
    """
    _check_options(options)
    keys, sources = split_overrides(options.words)
    if not sources:
        raise ValueError("no images: give files, folders or CSV files, and TEST.WEIGHT FILE")
    images = read_images(sources, ids=options.ids)
    if options.ids != "folder":
        images = name_cameras(images, sources)
    check_new_folder(options.out)
    if options.score:
        check_identities(images)
    embedder, _ = open_network(keys, recipe=options.config, trust=options.trust)
    images, embeddings, problems = embed_readable(images, embedder, options.batch)
    if problems and not options.skip_broken:
        raise ValueError(
            f"{len(problems)} of {len(problems) + len(images)} images cannot be read; "
            f"--skip-broken leaves them out; the first: {problems[0]}"
        )
    yield from (f"left out: {problem}" for problem in problems)
    if len(images) < 2:
        raise ValueError(f"identities need at least two images, found {len(images)}")
    settings = ClusterSettings(options.algorithm, options.radius, options.min_images)
    proposal = propose(
        embeddings, settings, k1=options.k1, k2=options.k2, tracks=_number_tracks(images)
    )
    num_cameras = len({image.camid for image in images if image.camid})
    num_unknown = sum(not image.camid for image in images)
    if num_cameras and num_unknown:
        yield f"the column camid is left out: {num_unknown} of {len(images)} images have none"
    write_labels(
        options.out, images, proposal, test_share=options.test_share, max_thumbnails=options.show
    )
    if options.score:
        yield score_proposal([image.pid for image in images], proposal.labels).describe()
    num_without = int((proposal.labels == OUTLIER).sum())
    yield (
        f"{options.out / PAGE}: {len(images)} images, {proposal.num_identities} identities, "
        f"{num_without} images without identity"
    )


def _check_options(options: argparse.Namespace) -> None:
    check_at_least(options, min_images=2, k1=2, k2=1, show=0, batch=1)
    if options.algorithm not in ALGORITHMS:
        raise ValueError(
            f"--algorithm is '{options.algorithm[:40]}', it must be one of {', '.join(ALGORITHMS)}"
        )
    for name in ("radius", "test_share"):
        value = getattr(options, name)
        if not 0 <= value <= 1:
            raise ValueError(f"--{name.replace('_', '-')} is {value}, it must be in 0..1")


def name_cameras(images: Sequence[ImageFile], sources: Sequence[str]) -> list[ImageFile]:
    """Name cameras by the folders directly in a source, if it contains no images itself."""
    folders = [Path(source) for source in sources if Path(source).is_dir()]
    loose = {image.path.parent for image in images}
    split = [folder for folder in folders if folder not in loose]
    return [
        next(
            (
                replace(image, camid=image.path.relative_to(folder).parts[0])
                for folder in split
                if image.path.is_relative_to(folder)
            ),
            image,
        )
        for image in images
    ]


def embed_readable(
    images: Sequence[ImageFile], embedder: Embedder, batch_size: int
) -> tuple[list[ImageFile], np.ndarray, list[str]]:
    """The readable images, their embeddings float32 [N, D], and one line about each other one."""
    kept: list[ImageFile] = []
    parts, problems = [], []
    for start, part in embed_chunks(images, embedder, batch_size):
        kept += [images[start + position] for position in part["positions"]]
        parts.append(part["embeddings"])
        for position, reason in zip(part["broken"], part["reasons"], strict=True):
            path = str(images[start + position].path)
            problems.append(str(reason) if path in str(reason) else f"{path}: {reason}")
    return kept, np.concatenate(parts), problems


def _number_tracks(images: Sequence[ImageFile]) -> np.ndarray | None:
    """The number of the tracklet of each image, -1 without one; None if no image has one."""
    names = [(image.camid, image.track) if image.track else None for image in images]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(filter(None, names)))}
    if not numbers:
        return None
    return np.array([-1 if name is None else numbers[name] for name in names], np.int64)


main = Command(
    "label", __doc__ or "", add_options, run, interrupted="interrupted; run it again"
).main
