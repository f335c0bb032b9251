"""Progressive resizing of training images."""

from types import SimpleNamespace

import pytest
import torch
from ember_reid.config import load_config
from ember_reid.data.batch import Batch
from ember_reid.engine.graph.build import find_obstacle
from ember_reid.engine.handlers.build import build_control, build_handlers
from ember_reid.engine.handlers.resizing import (
    ProgressiveResizing,
    resize_images,
    resized_sizes,
)
from ember_reid.engine.run.build import build_training_run


def test_the_sizes_are_parts_of_the_training_size_in_whole_pixels():
    assert resized_sizes((128, 64), (0.5, 0.75, 1.0)) == [(64, 32), (96, 48), (128, 64)]
    assert resized_sizes((2, 1), (0.1,)) == [(1, 1)]


def test_a_phase_starts_after_its_step():
    resizing = ProgressiveResizing([(4, 2), (6, 3), (8, 4)], [5, 8])
    assert [resizing.size(i) for i in (1, 5, 6, 8, 9, 100)] == [
        (4, 2), (4, 2), (6, 3), (6, 3), (8, 4), (8, 4),
    ]  # fmt: skip


def test_halving_an_image_is_antialiased():
    # A ramp stays a ramp: pixel i of the small image lies between the pixels 2i and 2i + 1.
    ramp = torch.arange(16.0).view(1, 1, 16, 1).expand(1, 3, 16, 8)
    small = resize_images(ramp, (8, 4))
    assert small.shape == (1, 3, 8, 4)
    inner = small[0, 0, 1:-1, 0]
    torch.testing.assert_close(inner, torch.arange(2.5, 14, 2))
    # Without antialiasing, every second column of a checkerboard would disappear.
    board = torch.tensor([0.0, 1.0]).repeat(4).expand(1, 3, 16, 8)
    assert resize_images(board, (8, 4))[..., 1:-1].sub(0.5).abs().max() < 1e-6


def test_images_of_the_right_size_are_not_copied_and_clips_keep_their_frames():
    clips = torch.rand(2, 5, 3, 8, 4)
    assert resize_images(clips, (8, 4)) is clips
    small = resize_images(clips, (4, 2))
    assert small.shape == (2, 5, 3, 4, 2)
    torch.testing.assert_close(small[1, 2], resize_images(clips[1:2, 2], (4, 2))[0])


def test_the_handler_replaces_the_images_of_the_batch_only():
    labels = torch.arange(2)
    engine = SimpleNamespace(
        state=SimpleNamespace(
            iteration=3, batch=Batch(torch.rand(2, 3, 8, 4), labels, labels, labels)
        )
    )
    ProgressiveResizing([(4, 2), (8, 4)], [3])(engine)
    assert engine.state.batch.images.shape == (2, 3, 4, 2)
    assert engine.state.batch.pids is labels


@pytest.mark.parametrize(
    "scales, steps, message",
    [
        ("(0.5, 1.0)", "()", "INPUT.SCALES has 2 numbers and INPUT.SCALE_STEPS 0"),
        ("(0.5, 0.75, 1.0)", "(0.6, 0.6)", "INPUT.SCALE_STEPS (0.6, 0.6) must be in increasing"),
        ("(0.5, 1.0)", "(1.0,)", "INPUT.SCALE_STEPS is (1.0,), allowed: a list of numbers, each"),
        ("(0.0, 1.0)", "(0.5,)", "INPUT.SCALES is (0.0, 1.0), allowed: a list of numbers, each"),
    ],
)
def test_scales_and_steps_must_fit(scales, steps, message):
    with pytest.raises(ValueError) as caught:
        load_config(None, ["INPUT.SCALES", scales, "INPUT.SCALE_STEPS", steps])
    assert message in str(caught.value)


def test_a_step_with_changing_sizes_is_not_captured():
    options = ["INPUT.SCALES", "(0.5, 1.0)", "INPUT.SCALE_STEPS", "(0.5,)"]
    assert "INPUT.SCALES" in find_obstacle(load_config(None, options))
    assert find_obstacle(load_config(None, [])) == ""


def test_the_network_of_a_run_sees_the_sizes(tiny_recipe, tmp_path):
    words = "INPUT.SCALES (0.5,1.0) INPUT.SCALE_STEPS (0.75,) SOLVER.MAX_EPOCHS 2 OUTPUT_DIR"
    cfg = load_config(tiny_recipe, [*words.split(), str(tmp_path)])
    run = build_training_run(cfg, torch.device("cpu"), evaluate=False)
    seen = []
    run.model.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape[-2:])))
    # The last three handlers evaluate, save, and stop on a signal.
    for handler in build_handlers(run, build_control(run))[:-3]:
        handler.attach(run.trainer)
    run.trainer.run(run.train_loader, 2, epoch_length=len(run.train_loader))
    height, width = cfg.INPUT.SIZE_TRAIN
    assert len(seen) == 8
    assert seen == [(height // 2, width // 2)] * 6 + [(height, width)] * 2
