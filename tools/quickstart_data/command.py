"""Render synthetic pedestrians under six cameras of one of two places.

    python -m tools.quickstart_data datasets/quickstart --images
    python -m tools.quickstart_data datasets/quickstart --images --tracklets
    python -m tools.quickstart_data datasets/quickstart --videos
    python -m tools.quickstart_data datasets/evening --place 2 --seed 2 --train-ids 200

--images writes OUT/market1501 in the layout of Market-1501, --tracklets writes OUT/mars in the
layout of MARS, with the same people. On one machine, the same parameters produce identical files.
Training and test identities are disjoint. Both datasets contain distractors (pid 0: people who are
in no query, and boxes without a person) and junk (pid -1: badly cropped boxes).
--videos writes two videos and their true tracks in the format of MOTChallenge:
OUT/videos/cam1.mp4, cam1.txt, cam2.mp4 and cam2.txt; with one track per visit to a camera:
cam1_visits.txt, cam2_visits.txt, and visits.csv (the person of each visit).
"""

import argparse
import json
import multiprocessing
import os
import shutil
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, fields
from pathlib import Path

from ember_reid.tools.common.cli import Command, check_at_least, echo
from ember_reid.tools.quickstart_data.layouts import (
    DISTRACTOR,
    FOLDERS,
    IMAGE,
    JUNK,
    LAYOUTS,
    TRACKLET,
    Job,
    Parameters,
    render_job,
    write_mars_tables,
)
from ember_reid.tools.quickstart_data.videos import write_videos

MARKER = "quickstart.json"
# Increased when the images change, so that older data is not reused.
VERSION = 2


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write to")
    parser.add_argument("--images", action="store_true", help="write OUT/market1501 (the default)")
    parser.add_argument("--tracklets", action="store_true", help="write OUT/mars")
    parser.add_argument("--seed", type=int, default=1, help="random seed (default %(default)s)")
    parser.add_argument(
        "--train-ids", type=int, default=100, help="training identities (default %(default)s)"
    )
    parser.add_argument(
        "--test-ids", type=int, default=50, help="test identities (default %(default)s)"
    )
    parser.add_argument(
        "--distractors",
        type=int,
        default=200,
        help="gallery images of pid 0 (default %(default)s)",
    )
    parser.add_argument(
        "--junk", type=int, default=100, help="gallery images of pid -1 (default %(default)s)"
    )
    parser.add_argument(
        "--frames",
        type=int,
        default=10,
        help="frames of the longest tracklet (default %(default)s)",
    )
    parser.add_argument(
        "--place",
        type=int,
        default=1,
        help="1, or 2: six other cameras, for adaptation (default %(default)s)",
    )
    parser.add_argument("--videos", action="store_true", help="write OUT/videos (needs PyAV)")
    parser.add_argument(
        "--video-people", type=int, default=10, help="people per video (default %(default)s)"
    )
    parser.add_argument(
        "--video-frames", type=int, default=160, help="frames per video (default %(default)s)"
    )
    parser.add_argument(
        "--video-route",
        action="store_true",
        help="everybody visits cam1 once, and cam2 2 to 4 seconds later (default: independently)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=len(os.sched_getaffinity(0)),
        help="processes (default: number of cores)",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace quickstart data with other parameters",
    )


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    chosen = {"market1501": options.images, "mars": options.tracklets}
    default = [] if options.videos else ["market1501"]
    layouts = [layout for layout in LAYOUTS if chosen[layout]] or default
    parameters = Parameters(*(getattr(options, field.name) for field in fields(Parameters)))
    rendered = make(
        options.out, layouts, parameters, workers=options.workers, overwrite=options.overwrite
    )
    for layout, seconds, count in rendered:
        folder = options.out / layout
        echo(
            f"{folder} already exists"
            if seconds is None
            else f"{folder}: {count} images in {seconds:.0f} s"
        )
    if options.videos:
        echo(make_videos(options))


def make_videos(options: argparse.Namespace) -> str:
    """Render the videos unless they exist; returns one line about them.

    Raises:
        ValueError: a count is too small, or PyAV is not installed.
    """
    check_at_least(options, video_people=1, video_frames=2)
    folder = options.out / "videos"
    if folder.is_dir() and not options.overwrite:
        return f"{folder} already exists"
    partial, started = options.out / "videos.part", time.perf_counter()
    shutil.rmtree(partial, ignore_errors=True)
    count = write_videos(
        partial,
        seed=options.seed,
        people=options.video_people,
        frames=options.video_frames,
        route=options.video_route,
    )
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return f"{folder}: {count} frames in {time.perf_counter() - started:.0f} s"


def make(
    out: Path,
    layouts: list[str],
    parameters: Parameters,
    *,
    workers: int = 1,
    overwrite: bool = False,
) -> list[tuple[str, float | None, int]]:
    """Render the layouts that do not yet exist in `out`.

    Returns:
        For each layout: its name, seconds (None if it existed), and number of images.

    Raises:
        ValueError: `out` contains quickstart data with other parameters (use `overwrite` to
            replace it) or other files (which are never changed).
    """
    _check(parameters, workers)
    done = _open_folder(out, parameters, overwrite=overwrite)
    report: list[tuple[str, float | None, int]] = []
    for layout in layouts:
        if layout in done:
            report.append((layout, None, 0))
            continue
        started, partial = time.perf_counter(), out / f"{layout}.part"
        shutil.rmtree(partial, ignore_errors=True)
        count = _render(partial, layout, parameters, workers)
        partial.rename(out / layout)
        done.append(layout)
        _write_marker(out, parameters, done)
        report.append((layout, time.perf_counter() - started, count))
    return report


def _check(parameters: Parameters, workers: int) -> None:
    least = dict.fromkeys(("train_ids", "test_ids", "frames", "place"), 1)
    least |= dict.fromkeys(("seed", "distractors", "junk"), 0)
    for name, value in asdict(parameters).items():
        if value < least[name]:
            raise ValueError(
                f"--{name.replace('_', '-')} is {value}, it must be at least {least[name]}"
            )
    if parameters.train_ids + parameters.test_ids > 9999:
        raise ValueError(
            f"--train-ids and --test-ids sum to {parameters.train_ids + parameters.test_ids}; "
            "identities have four digits, so at most 9999 are possible"
        )
    if parameters.place > 2:
        raise ValueError(f"--place is {parameters.place}, it must be 1 or 2")
    if workers < 1:
        raise ValueError(f"--workers is {workers}, it must be at least 1")


def _open_folder(out: Path, parameters: Parameters, *, overwrite: bool) -> list[str]:
    """Prepare `out`; return the layouts that it already contains."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; OUT must be a folder")
    marker = out / MARKER
    if marker.is_file():
        try:
            found = json.loads(marker.read_text())
            existing, done = (
                {"place": 1, **found["parameters"], "version": found["version"]},
                list(found["layouts"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{marker} cannot be read; remove {out} or choose another folder"
            ) from error
        wanted = {**asdict(parameters), "version": VERSION}
        if existing == wanted:
            return [layout for layout in done if (out / layout).is_dir()]
        if not overwrite:
            differing = (
                f"{key} {existing.get(key)} instead of {wanted[key]}"
                for key in wanted
                if existing.get(key) != wanted[key]
            )
            raise ValueError(
                f"{out} contains quickstart data with {', '.join(differing)}; choose another "
                "folder or give --overwrite"
            )
        for layout in LAYOUTS:
            shutil.rmtree(out / layout, ignore_errors=True)
    elif out.is_dir() and any(out.iterdir()):
        raise ValueError(
            f"{out} contains files that are not quickstart data; choose another folder "
            "(nothing was changed)"
        )
    out.mkdir(parents=True, exist_ok=True)
    _write_marker(out, parameters, [])
    return []


def _write_marker(out: Path, parameters: Parameters, layouts: list[str]) -> None:
    content = {"version": VERSION, "parameters": asdict(parameters), "layouts": layouts}
    temporary = out / f"{MARKER}.part"
    temporary.write_text(json.dumps(content, indent=2) + "\n")
    temporary.replace(out / MARKER)


def _render(root: Path, layout: str, parameters: Parameters, workers: int) -> int:
    """Render one layout into `root`; return the number of images."""
    ids = range(1, parameters.train_ids + parameters.test_ids + 1)
    own = IMAGE if layout == "market1501" else TRACKLET
    jobs = [Job(layout, own, pid) for pid in ids]
    jobs += [
        Job(layout, DISTRACTOR, number)
        for number in range(_num_extra(parameters.distractors, layout))
    ]
    jobs += [Job(layout, JUNK, number) for number in range(_num_extra(parameters.junk, layout))]
    for folder in FOLDERS[layout]:
        (root / folder).mkdir(parents=True)
    if workers == 1:
        names = [name for job in jobs for name in render_job(root, parameters, job)]
    else:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            results = pool.map(
                _render_packed, ((root, parameters, job) for job in jobs), chunksize=8
            )
            names = [name for result in results for name in result]
    if layout == "mars":
        write_mars_tables(root / "info", names, parameters)
    return len(names)


def _num_extra(count: int, layout: str) -> int:
    """The number of distractors or junk items; a tenth for tracklets, which have many frames."""
    return count if layout == "market1501" else -(-count // 10)


def _render_packed(arguments: tuple[Path, Parameters, Job]) -> list[str]:
    return render_job(*arguments)


main = Command("quickstart_data", __doc__ or "", add_options, run).main
