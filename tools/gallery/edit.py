"""List, merge, forget and export the identities of a gallery."""

import argparse
import csv
from collections import Counter
from pathlib import Path

from ember_reid.engine.files import replaced_file
from ember_reid.tools.common.cli import Command, echo
from ember_reid.tools.common.feature_file import Features, save_features, words
from ember_reid.tools.gallery.store import Gallery

LIST = """List the identities of a gallery and their numbers of images.

    python -m tools.gallery list people.db
"""
MERGE = """Move the images of identities to another identity.

    python -m tools.gallery merge people.db Anna id-000007 id-000012

Anna has all images afterwards, the other names no longer exist.
"""
FORGET = """Delete identities with all their embeddings.

    python -m tools.gallery forget people.db Anna

The content is overwritten in the file, and the indexes next to it are deleted. Backups, exported
files and the images themselves are not touched.
"""
EXPORT = """Write the content of a gallery to a file.

    python -m tools.gallery export people.db --out people.npz
    python -m tools.gallery export people.db --out people.csv

An .npz file has the format of `tools.extract` and can be searched with `tools.search`; a .csv file
lists path, pid and camid, and can be used for training.
"""


def _add_gallery(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("gallery", type=Path, metavar="FILE", help="the gallery")


def _add_merge_options(parser: argparse.ArgumentParser) -> None:
    _add_gallery(parser)
    parser.add_argument("kept", metavar="NAME", help="the identity that remains")
    parser.add_argument("others", nargs="+", metavar="OTHER", help="identities that are moved")


def _add_forget_options(parser: argparse.ArgumentParser) -> None:
    _add_gallery(parser)
    parser.add_argument("names", nargs="+", metavar="NAME", help="identities to delete")


def _add_export_options(parser: argparse.ArgumentParser) -> None:
    _add_gallery(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.npz|FILE.csv")


def run_list(options: argparse.Namespace) -> None:
    """Print one line per identity."""
    with Gallery(options.gallery) as gallery:
        snapshot = gallery.snapshot()
    counts = Counter(snapshot.owners.tolist())
    for position, name in enumerate(snapshot.names):
        echo(f"{name}: {counts[position]}")
    echo(f"{len(snapshot.names)} identities, {len(snapshot.owners)} images")


def run_merge(options: argparse.Namespace) -> None:
    """Merge and report."""
    with Gallery(options.gallery) as gallery:
        count = gallery.merge(options.kept, options.others)
    echo(f"{count} images moved to {options.kept}")


def run_forget(options: argparse.Namespace) -> None:
    """Forget and report."""
    with Gallery(options.gallery) as gallery:
        count = gallery.forget(options.names)
    echo(f"{len(set(options.names))} identities with {count} images deleted")


def run_export(options: argparse.Namespace) -> None:
    """Write the file."""
    with Gallery(options.gallery) as gallery:
        snapshot, network = gallery.snapshot(), gallery.network
    names = [snapshot.names[owner] for owner in snapshot.owners]
    if options.out.suffix == ".npz":
        features = Features(
            embeddings=snapshot.embeddings,
            paths=words(snapshot.sources),
            pids=words(names),
            camids=words(snapshot.cameras),
            card=network.card,
            weights=network.weights,
            config=network.config,
            plan="",
            broken=words([]),
            reasons=words([]),
        )
        save_features(options.out, features)
    elif options.out.suffix == ".csv":
        with (
            replaced_file(options.out) as draft,
            draft.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(["path", "pid", "camid"])
            writer.writerows(zip(snapshot.sources, names, snapshot.cameras, strict=True))
    else:
        raise ValueError(f"--out is {options.out}, it must end in .npz or .csv")
    echo(f"{options.out}: {len(names)} images of {len(snapshot.names)} identities")


list_identities = Command("gallery list", LIST, _add_gallery, run_list).main
merge = Command("gallery merge", MERGE, _add_merge_options, run_merge).main
forget = Command("gallery forget", FORGET, _add_forget_options, run_forget).main
export = Command("gallery export", EXPORT, _add_export_options, run_export).main
