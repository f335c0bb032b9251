"""Part 4: nothing waits for the GPU between log periods; launches and idle time of the GPU."""

import time
from collections.abc import Callable
from functools import partial

import torch
from ember_reid.tools.benchmark.machine import synchronize
from ember_reid.tools.check_gpu.results import Result
from ember_reid.tools.check_gpu.setting import (
    Setting,
    run_iterations,
    tiny_words,
    training,
    write_images,
)
from torch.profiler import ProfilerActivity, profile

# Iterations that must not wait: after the capture, and before the end of the epoch.
FIRST, LAST, END = 8, 20, 28
LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernelEx")
NETWORK = (
    "MODEL.BACKBONE.NAME resnet50 INPUT.SIZE_TRAIN (256,128) SOLVER.IMS_PER_BATCH 64 "
    "DATALOADER.NUM_INSTANCES 4 SOLVER.FP16 True SOLVER.AMP_DTYPE bfloat16"
)


def check(setting: Setting, result: Result) -> None:
    """Run the steps where a waiting call is an error, and profile some of them."""
    # 30 and 40 batches per epoch.
    num_ids, images_per_id = (8, 30) if setting.rehearse else (128, 20)
    images = write_images(setting.folder / "many", num_ids=num_ids, images_per_id=images_per_id)
    for step in ("graph", "eager"):
        words = [*tiny_words(setting, images, step), "SOLVER.LOG_PERIOD", "1000"]
        words += ["SOLVER.STEP", step, *(() if setting.rehearse else NETWORK.split())]
        try:
            _check_step(words, step, setting, result)
        except RuntimeError as error:
            result.check(f"nothing waits, {step}", False, error)
        finally:
            _set_mode(setting, "default")


def _check_step(words: list[str], step: str, setting: Setting, result: Result) -> None:
    activities = [ProfilerActivity.CPU]
    if setting.device == "cuda":
        activities.append(ProfilerActivity.CUDA)
    profiler = profile(activities=activities)
    marks: list[float] = []

    def start() -> None:
        synchronize()
        profiler.start()
        marks.append(time.perf_counter())

    def stop() -> None:
        synchronize()
        marks.append(time.perf_counter())
        profiler.stop()

    actions: dict[int, Callable[[], object]] = {
        FIRST: partial(_set_mode, setting, "error"),
        LAST: partial(_set_mode, setting, "default"),
        LAST + 1: start,
        END - 1: stop,
    }
    with training(words) as run:
        run_iterations(run, END, at=actions)
    result.check(f"nothing waits, {step}", True, f"iterations {FIRST + 1} to {LAST}")
    count, seconds = END - LAST - 2, marks[1] - marks[0]
    events = profiler.key_averages()
    launches = sum(event.count for event in events if event.key in LAUNCHES)
    graphs = sum(event.count for event in events if event.key == "cudaGraphLaunch")
    busy = sum(event.self_device_time_total for event in events) / 1e6 / seconds
    result.record(f"launches per iteration, {step}", f"{launches / count:.1f} kernels")
    result.record(f"graphs per iteration, {step}", f"{graphs / count:.1f}")
    result.record(f"busy share of the GPU, {step}, with profiler", f"{busy:.1%}")


def _set_mode(setting: Setting, mode: str) -> None:
    if setting.device == "cuda":
        torch.cuda.set_sync_debug_mode(mode)
