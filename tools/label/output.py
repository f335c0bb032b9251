"""The files of proposed identities: labels.csv, and a page to correct them."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from ember_reid.data.images import num_cpus
from ember_reid.evaluate import OUTLIER
from ember_reid.tools.common.html import load_thumbnail, write_html
from ember_reid.tools.common.inputs import ImageFile
from ember_reid.tools.crops.split import split_crops
from ember_reid.tools.crops.writer import format_rows, write_file
from ember_reid.tools.label.proposal import Proposal

LABELS, PAGE = "labels.csv", "index.html"
SEED = 0
THUMBNAIL, QUALITY = (80, 160), 70


def check_new_folder(out: Path) -> None:
    """Raise ValueError unless the folder is new or empty: corrected labels must not be lost."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out is {out}, a file; it must be a folder")
    names = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    if names:
        raise ValueError(f"--out is {out}, which already contains {names[0]}; name a new folder")


def write_labels(
    out: Path,
    images: Sequence[ImageFile],
    proposal: Proposal,
    *,
    test_share: float,
    max_thumbnails: int,
) -> None:
    """Write labels.csv and the page.

    Args:
        out: the folder.
        images: N images.
        proposal: their identities.
        test_share: share of the identities that are test data.
        max_thumbnails: of the page; of identities with low confidence first.
    """
    out.mkdir(parents=True, exist_ok=True)
    write_file(out / LABELS, _format_labels(out.resolve(), images, proposal, test_share))
    order = order_identities(proposal)
    shown = _choose_thumbnails(proposal, order, max_thumbnails)
    content = {
        "title": "Identities",
        "data": {
            "images": _describe_images(images, proposal, shown),
            "order": order,
            "next": [
                {"identity": int(identity), "similarity": round(float(similarity), 3)}
                for identity, similarity in zip(
                    proposal.next_identity, proposal.next_similarity, strict=True
                )
            ],
            "hasCameras": _has_cameras(images),
            "testShare": test_share,
        },
        "num_hidden": len(images) - len(shown),
    }
    write_html(out / PAGE, "label.html", content)


def _has_cameras(images: Sequence[ImageFile]) -> bool:
    return all(image.camid for image in images)


def _format_labels(
    out: Path, images: Sequence[ImageFile], proposal: Proposal, test_share: float
) -> bytes:
    """The images with an identity, in the order of the identities."""
    chosen = [
        position
        for position in np.argsort(proposal.labels, kind="stable").tolist()
        if proposal.labels[position] != OUTLIER
    ]
    pids = [str(proposal.labels[position] + 1) for position in chosen]
    cameras = [images[position].camid for position in chosen]
    has_cameras = _has_cameras(images)
    splits = split_crops(
        pids, cameras if has_cameras else [""] * len(pids), test_share=test_share, seed=SEED
    )
    columns = ["path", "pid", *(["camid"] if has_cameras else []), "split", "confidence"]
    rows = []
    for position, pid, camera, split in zip(chosen, pids, cameras, splits, strict=True):
        path = Path(os.path.relpath(images[position].path.resolve(), out)).as_posix()
        confidence = f"{proposal.confidence[position]:.4f}"
        rows.append([path, pid, *([camera] if has_cameras else []), split, confidence])
    return format_rows(columns, rows)


def order_identities(proposal: Proposal) -> list[int]:
    """The identities in the order of their mean confidence, the lowest first."""
    means = [
        float(proposal.confidence[proposal.labels == label].mean())
        for label in range(proposal.num_identities)
    ]
    return sorted(range(proposal.num_identities), key=lambda label: (means[label], label))


def _choose_thumbnails(proposal: Proposal, order: Sequence[int], count: int) -> set[int]:
    """The images with a thumbnail: identities in order, then those without identity."""
    places = {label: place for place, label in enumerate([*order, OUTLIER])}
    ranked = sorted(
        range(len(proposal.labels)),
        key=lambda position: (places[int(proposal.labels[position])], position),
    )
    return set(ranked[:count])


def _describe_images(
    images: Sequence[ImageFile], proposal: Proposal, shown: set[int]
) -> list[dict[str, object]]:
    def describe(position: int) -> dict[str, object]:
        path = images[position].path.resolve()
        return {
            "path": path.as_posix(),
            "camera": images[position].camid,
            "label": int(proposal.labels[position]),
            "confidence": round(float(proposal.confidence[position]), 3),
            "image": load_thumbnail(path, quality=QUALITY, size=THUMBNAIL)
            if position in shown
            else "",
        }

    # Pillow releases the interpreter lock.
    with ThreadPoolExecutor(num_cpus()) as pool:
        return list(pool.map(describe, range(len(images))))
