"""The color histogram counts what a reader can count, and the command scores both baselines."""

import pytest
import torch
from ember_reid.tools.baselines.command import ColorHistogram, main

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.2, 0.2)


def normalized(images: torch.Tensor) -> torch.Tensor:
    mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
    return (images.float() / 255 - mean) / std


def test_bins_hold_the_shares_of_their_colors():
    image = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    # Red bin 7, green 0, blue 1.
    image[0, :, 0, 0] = torch.tensor([255, 31, 32])
    histogram = ColorHistogram(MEAN, STD)(normalized(image)).embedding[0].square()
    assert histogram[0].item() == pytest.approx(0.75)
    assert histogram[7 * 64 + 0 * 8 + 1].item() == pytest.approx(0.25)
    assert histogram.sum().item() == pytest.approx(1.0)


def test_clips_are_counted_over_their_frames():
    clip = torch.zeros(1, 2, 3, 1, 1, dtype=torch.uint8)
    clip[0, 1] = 255
    histogram = ColorHistogram(MEAN, STD)(normalized(clip)).embedding[0].square()
    assert histogram[[0, 511]].tolist() == pytest.approx([0.5, 0.5])


def test_a_user_error_is_one_line(capsys):
    assert main(["-c", "no/such.yml"]) == 2
    assert capsys.readouterr().err.startswith(
        "baselines: configuration file no/such.yml does not exist"
    )
