"""The clusters of unlabeled images in the report: the largest, most mixed and least stable ones."""

import csv
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ember_reid.engine.adapt.pseudo_labels import CLUSTER_FILE
from ember_reid.tools.common.html import Table

# Clusters per table.
NUM_SHOWN = 10
COLUMNS = {"path", "camid", "track", "cluster", "changes"}


@dataclass(frozen=True)
class Cluster:
    """One cluster.

    Attributes:
        size: number of images.
        camids: number of images of each camera.
        changes: mean number of times that the cluster of an image has changed.
        example: the first image.
    """

    number: int
    size: int
    camids: dict[str, int]
    changes: float
    example: str

    @property
    def evenness(self) -> float:
        """1 - the part of the most frequent camera."""
        return 1 - max(self.camids.values()) / self.size


def read_clusters(folder: Path) -> list[Cluster]:
    """The clusters in `clusters.csv` of a run, in the order of their numbers; [] without it.

    Raises:
        ValueError: the file is damaged.
    """
    path = folder / CLUSTER_FILE
    if not path.is_file():
        return []
    rows = defaultdict(list)
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if not set(reader.fieldnames or ()) >= COLUMNS:
                raise ValueError(f"the columns are not {', '.join(sorted(COLUMNS))}")
            for row in reader:
                rows[int(row["cluster"])].append((row["camid"], int(row["changes"]), row["path"]))
    except (ValueError, TypeError, csv.Error) as error:
        raise ValueError(f"{path} is damaged: {str(error)[:200]}") from error
    return [
        Cluster(
            number=number,
            size=len(images),
            camids=dict(Counter(camid for camid, _, _ in images)),
            changes=sum(changes for _, changes, _ in images) / len(images),
            example=Path(images[0][2]).name,
        )
        for number, images in sorted(rows.items())
        if number >= 0
    ]


def cluster_table(folder: Path | None) -> Table | None:
    """The clusters to look at first; None without a folder or unlabeled images."""
    clusters = [] if folder is None else read_clusters(folder)
    if not clusters:
        return None
    orders: dict[str, Callable[[Cluster], float]] = {
        "largest": lambda one: one.size,
        "most mixed by camera": lambda one: one.evenness,
        "least stable": lambda one: one.changes,
    }
    rows = [
        (
            name,
            one.number,
            one.size,
            len(one.camids),
            f"{one.evenness:.0%}",
            f"{one.changes:.1f}",
            one.example,
        )
        for name, order in orders.items()
        for one in sorted(clusters, key=order, reverse=True)[:NUM_SHOWN]
    ]
    head = ("", "cluster", "images", "cameras", "not of the main camera", "changes", "first image")
    return Table(head, tuple(rows))
