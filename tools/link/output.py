"""The files of linked identities: links.csv, crops.csv, index.html and summary.json."""

import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ember_reid.engine.files import replaced_folder
from ember_reid.tools.common.html import Figure, Section, load_thumbnail, write_gallery
from ember_reid.tools.crops.split import split_crops
from ember_reid.tools.crops.writer import format_rows, write_file
from ember_reid.tools.link.tracklets import CropList, Tracklet, spread

LINKS, CROPS, PAGE, SUMMARY = "links.csv", "crops.csv", "index.html", "summary.json"
COLUMNS = ("camid", "track", "identity", "confidence", "first", "last", "num_crops")
TEST_SHARE, SEED = 0.5, 0
# Limits of the page: tracklets per identity, crops per tracklet.
MAX_TRACKLETS, CROPS_PER_TRACKLET = 24, 3


@dataclass(frozen=True, eq=False)
class Links:
    """The identities of tracklets.

    Attributes:
        crops: the list that the tracklets come from.
        tracklets: N tracklets.
        labels: int64 [N], identities numbered from 0.
        confidence: float64 [N], see `evaluate.agglomeration.silhouettes`.
    """

    crops: CropList
    tracklets: Sequence[Tracklet]
    labels: np.ndarray
    confidence: np.ndarray

    def name(self, tracklet: int) -> str:
        """The identity of a tracklet, as it is written."""
        return str(self.labels[tracklet] + 1)


def check_folder(out: Path, crops: Path) -> None:
    """Raise ValueError unless the folder is new, empty, or contains only earlier results."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out is {out}, a file; it must be a folder")
    if crops.resolve().is_relative_to(out.resolve()):
        raise ValueError(f"--out is {out}, the folder of {crops.name}; choose another folder")
    names = {path.name for path in out.iterdir()} if out.is_dir() else set()
    others = sorted(names - {LINKS, CROPS, PAGE, SUMMARY})
    if others or (names and SUMMARY not in names):
        found = (others or sorted(names))[0]
        raise ValueError(
            f"--out is {out}, which contains {found}, not a result of this command; choose "
            "another folder"
        )


def write_links(
    out: Path, links: Links, summary: Mapping[str, object], *, max_identities: int
) -> None:
    """Replace the folder; it appears when all files are complete.

    Args:
        summary: content of summary.json.
        max_identities: sections of the page.
    """
    with replaced_folder(out) as draft:
        write_file(draft / LINKS, _format_links(links))
        write_file(draft / CROPS, _format_crops(links, out.resolve()))
        _write_page(draft / PAGE, links, max_identities)
        text = json.dumps(summary, indent=2, allow_nan=False) + "\n"
        write_file(draft / SUMMARY, text.encode())


def _format_links(links: Links) -> bytes:
    rows = []
    for position, tracklet in enumerate(links.tracklets):
        times = ("" if time is None else round(time, 4) for time in (tracklet.first, tracklet.last))
        confidence = f"{links.confidence[position]:.4f}"
        labels = (tracklet.camid, tracklet.track, links.name(position), confidence)
        rows.append([*labels, *times, len(tracklet.rows)])
    return format_rows(COLUMNS, rows)


def _format_crops(links: Links, out: Path) -> bytes:
    """The rows of all tracklets with their identities and a new split, in order of the input."""
    source = links.crops.path.resolve().parent
    identities = {
        row: links.name(position)
        for position, tracklet in enumerate(links.tracklets)
        for row in tracklet.rows
    }
    chosen = sorted(identities)
    rows = [links.crops.rows[position] for position in chosen]
    pids = [identities[position] for position in chosen]
    splits = split_crops(pids, [row["camid"] for row in rows], test_share=TEST_SHARE, seed=SEED)
    columns = list(dict.fromkeys([*links.crops.columns, "pid", "split"]))
    lines = []
    for row, pid, split in zip(rows, pids, splits, strict=True):
        path = row["path"]
        if not Path(path).is_absolute():
            path = os.path.relpath(source / path, out)
        values = {**row, "path": path, "pid": pid, "split": split}
        lines.append([values[column] for column in columns])
    return format_rows(columns, lines)


def _write_page(path: Path, links: Links, max_identities: int) -> None:
    members: defaultdict[int, list[int]] = defaultdict(list)
    for position, label in enumerate(links.labels.tolist()):
        members[label].append(position)
    # The identities with the most tracklets first; of equal ones, the first.
    ordered = sorted(members, key=lambda label: (-len(members[label]), label))
    shown = ordered[:max_identities]
    cameras = len({tracklet.camid for tracklet in links.tracklets})
    facts = [
        f"{len(links.tracklets)} tracklets of {cameras} cameras, {len(members)} identities. "
        f"Confidence: near 1 if a tracklet is much nearer to its own identity than to any other, "
        f"0 or less if it may belong to another one."
    ]
    if len(shown) < len(ordered):
        facts.append(f"The {len(shown)} identities with the most tracklets are shown.")
    sections = [_create_section(links, label, members[label]) for label in shown]
    write_gallery(path, sections, title="Linked identities", facts=facts)


def _create_section(links: Links, label: int, members: list[int]) -> Section:
    cameras = len({links.tracklets[position].camid for position in members})
    title = f"Identity {label + 1}: {len(members)} tracklets in {cameras} cameras"
    if len(members) > MAX_TRACKLETS:
        title += f", the first {MAX_TRACKLETS} are shown"
    figures = []
    for position in members[:MAX_TRACKLETS]:
        tracklet = links.tracklets[position]
        lines = [
            f"{tracklet.camid} {tracklet.track}".strip(),
            f"confidence {links.confidence[position]:.2f}",
        ]
        if tracklet.first is not None:
            lines.append(f"{tracklet.first:.1f} to {tracklet.last:.1f} s")
        for row in spread(tracklet.rows, CROPS_PER_TRACKLET):
            crop = links.crops.path.parent / links.crops.rows[row]["path"]
            figures.append(Figure(load_thumbnail(crop), "", tuple(lines)))
    return Section(title, tuple(figures))
