"""Viewpoints of VeRi-776: read from the files of their authors, and passed on to the network."""

import re

import pytest
import torch
from ember_reid.config import load_config
from ember_reid.data.dataset import ReidDataset, collate
from ember_reid.data.datasets.market_style import load_veri776
from ember_reid.data.records import Record, Splits, merge_train
from ember_reid.data.side_information import check_views
from ember_reid.modeling.backbones.options import SideOptions
from ember_reid.modeling.backbones.vit import SideEmbedding, side_index

from tests.helpers.benchmark_trees import write_veri776


def line(name, view):
    return " ".join([f"/data/image_train/{name}", *["-1"] * 40, str(view)]) + "\n"


@pytest.fixture
def tree(tmp_path):
    root = write_veri776(tmp_path / "VeRi")
    (root / "keypoint_train.txt").write_text(
        line("0001_c001_00016450_0.jpg", 7) + line("0001_c020_00000001_0.jpg", 2)
    )
    (root / "keypoint_test.txt").write_text(line("0002_c003_00000003_0.jpg", 5))
    return root


def test_viewpoints_are_those_of_the_files(tree):
    splits = load_veri776(tree)
    assert [record.viewid for record in splits.train] == [7, -1, 2]
    assert [record.viewid for record in splits.gallery] == [-1, -1, 5]
    # Merging datasets keeps them, and batches contain them.
    records = merge_train([splits, splits])
    assert [record.viewid for record in records] == [7, -1, 2] * 2
    dataset = ReidDataset(records, size=(8, 8))
    assert dataset.__getitems__([2, 1]).viewids.tolist() == [2, -1]
    assert collate([dataset[0], dataset[1]]).viewids.tolist() == [7, -1]


def test_lines_without_a_viewpoint_are_errors(tree):
    (tree / "keypoint_test.txt").write_text("\n" + line("0002_c003_00000003_0.jpg", 8))
    expected = "keypoint_test.txt, line 2 does not parse: .* and a viewpoint of 0 to 7"
    with pytest.raises(ValueError, match=expected):
        load_veri776(tree)


@pytest.mark.parametrize(
    "views, message",
    [
        ((-1, -1), "training images of x have no viewpoint labels; put keypoint_train.txt and "),
        ((0, 3), "VIEWS is 3, but x has images of viewpoint 3, counted from 0; set it to 4 or"),
    ],
)
def test_viewpoints_are_checked_before_training(views, message):
    records = tuple(Record((), 0, 0, view) for view in views)
    splits = Splits(train=records, query=(), gallery=(), name="x")
    check_views([splits], 0)
    check_views([Splits(train=(), query=records, gallery=())], 3)
    with pytest.raises(ValueError, match=message):
        check_views([splits], 3)


def test_viewpoints_without_cameras_are_refused():
    message = "MODEL.SIE.VIEWS 8 are viewpoints of each camera: set MODEL.SIE.CAMERAS to the number"
    with pytest.raises(ValueError, match=re.escape(message)):
        load_config(None, ["MODEL.SIE.VIEWS", "8"])


def test_each_pair_of_camera_and_viewpoint_has_a_vector():
    side = SideEmbedding(4, SideOptions(num_cameras=3, num_views=2, weight=1.5))
    vectors = side.embedding
    assert vectors.shape == (6, 4)
    camids, viewids = torch.tensor([0, 2, 1]), torch.tensor([1, 0, -1])
    found = side(side_index(camids, viewids, 2))[:, 0]
    # TransReID's index is camera * 2 + viewpoint.
    torch.testing.assert_close(found[:2], 1.5 * vectors[[1, 4]])
    torch.testing.assert_close(found[2], 1.5 * vectors[2:4].mean(dim=0))
    assert torch.equal(side(side_index(camids, None, 2))[0], side(torch.tensor([2]))[0])
    torch.testing.assert_close(side(None)[0, 0], 1.5 * vectors.mean(dim=0))
    assert torch.equal(side_index(camids, viewids, 0), camids)
