"""The program reproduces the worked example in docs/explanation/metrics.md."""

import re
from pathlib import Path

import numpy as np
import pytest
from ember_reid.evaluate import rank_metrics

TEXT = (Path(__file__).resolve().parents[2] / "docs/explanation/metrics.md").read_text(
    encoding="utf-8"
)


def rows(heading: str) -> list[list[str]]:
    """The cells of the table that follows a heading, without its head."""
    lines = TEXT.split(f"### {heading}\n", 1)[1].splitlines()
    table = [
        line
        for line in lines[: next(k for k, line in enumerate(lines) if line.startswith("#"))]
        if "|" in line
    ]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


def test_the_tables_of_the_document_give_its_scores():
    entries, distances = rows("The gallery"), rows("The distances")
    gallery_pids, gallery_camids = ([int(row[column]) for row in entries] for column in (1, 2))
    queries = [
        re.fullmatch(r"(\w+) \(identity (\d+), camera (\d+)\)", row[0]).groups()
        for row in distances
    ]
    scores = rank_metrics(
        np.array([[float(cell) for cell in row[1:]] for row in distances]),
        np.array([int(pid) for _, pid, _ in queries]),
        np.array(gallery_pids),
        np.array([int(camid) for _, _, camid in queries]),
        np.array(gallery_camids),
        max_rank=5,
    )
    said = {row[0]: row[1:] for row in rows("The scores")}
    assert scores.num_valid == 2
    for column, values in ((1, scores.ap), (2, scores.inp)):
        found = [float(said[name][column].split("=")[-1]) for name in ("A", "B")]
        assert found == pytest.approx(values, abs=5e-4)
    assert float(said["all"][1].split("=")[-1]) == pytest.approx(scores.mAP, abs=5e-4)
    assert float(said["all"][2].split("=")[-1]) == pytest.approx(scores.mINP, abs=5e-4)
    cmc = [float(row[1]) for row in rows("The CMC curve")]
    assert cmc == scores.cmc[:5].tolist()
