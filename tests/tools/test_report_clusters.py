"""Clusters of unlabeled images in the report."""

import pytest
from ember_reid.tools.report.clusters import cluster_table, read_clusters

ROWS = """path,camid,track,cluster,changes
/x/a.jpg,0,-1,0,0
/x/b.jpg,0,-1,0,0
/x/c.jpg,0,-1,0,3
/x/d.jpg,0,-1,1,2
/x/e.jpg,1,-1,1,4
/x/f.jpg,1,-1,-1,9
"""


def test_clusters_by_hand(tmp_path):
    (tmp_path / "clusters.csv").write_text(ROWS)
    first, second = read_clusters(tmp_path)
    assert (first.size, first.camids, first.changes, first.evenness) == (3, {"0": 3}, 1, 0)
    assert (second.size, second.changes, second.evenness) == (2, 3, 0.5)
    table = cluster_table(tmp_path)
    assert [row[:3] for row in table.rows] == [
        ("largest", 0, 3),
        ("largest", 1, 2),
        ("most mixed by camera", 1, 2),
        ("most mixed by camera", 0, 3),
        ("least stable", 1, 2),
        ("least stable", 0, 3),
    ]
    assert table.rows[2][3:] == (2, "50%", "3.0", "d.jpg")


def test_runs_without_clusters_and_damaged_files(tmp_path):
    assert cluster_table(tmp_path) is None
    for text in ("path\na\n", ROWS.replace("1,4", "x,4")):
        (tmp_path / "clusters.csv").write_text(text)
        with pytest.raises(ValueError, match="clusters.csv is damaged"):
            cluster_table(tmp_path)
