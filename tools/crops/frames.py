"""Frames of a video, or of a folder of images."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ember_reid.data.images import IMAGE_SUFFIXES, MAX_PIXELS, open_image
from ember_reid.engine.deploy.export import check_packages


@dataclass(frozen=True)
class Frame:
    """One frame: its index from 0, its time in seconds if known, and uint8 RGB [H, W, 3]."""

    index: int
    time: float | None
    pixels: np.ndarray


class FrameSource(Protocol):
    """Frames in order.

    Attributes:
        path: the video or folder.
        count: number of frames that can be read.
        size: width and height.
        rate: frames per second, or None if unknown.
        problem: why there are fewer frames than there should be, or "".
        names: name of an image without suffix -> index; empty for videos.
    """

    path: Path
    count: int
    size: tuple[int, int]
    rate: float | None
    problem: str
    names: dict[str, int]

    def read(self, wanted: Collection[int]) -> Iterator[Frame | None]:
        """All frames up to the last wanted one; None for those that are not wanted."""
        ...


def open_frames(path: Path, *, rate: float | None = None) -> FrameSource:
    """Open a folder of images or a video.

    Args:
        rate: frames per second of a folder.

    Raises:
        FileNotFoundError: the path does not exist, or the folder has no images.
        ValueError: the file is not a video, or PyAV is not installed.
    """
    if path.is_dir():
        return ImageFolder(path, rate)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist or is neither a video nor a folder")
    return Video(path)


class ImageFolder:
    """A folder of images; the order is that of the numbers in their names."""

    problem = ""

    def __init__(self, path: Path, rate: float | None) -> None:
        images = (p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        self.files = sorted(images, key=lambda file: _natural(file.name))
        if not self.files:
            raise FileNotFoundError(f"there is no image in {path}")
        self.path = path
        self.count = len(self.files)
        self.size = open_image(self.files[0]).size
        self.rate = rate
        self.names = {file.stem: index for index, file in enumerate(self.files)}

    def read(self, wanted: Collection[int]) -> Iterator[Frame | None]:
        for index in range(max(wanted, default=-1) + 1):
            time = None if self.rate is None else index / self.rate
            if index in wanted:
                yield Frame(index, time, np.asarray(open_image(self.files[index])))
            else:
                yield None


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts frame9 before frame10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


class Video:
    """A video file, decoded with PyAV.

    Frames are numbered by their position in the order of presentation, so a frame that cannot be
    decoded does not shift the others.
    """

    def __init__(self, path: Path) -> None:
        check_packages("reading videos", ("av",))
        self.path = path
        self.names: dict[str, int] = {}
        self.problem = ""
        with self._open() as container:
            stream = container.streams.video[0]
            width, height = stream.codec_context.width, stream.codec_context.height
            if not 0 < width * height <= MAX_PIXELS:
                raise ValueError(
                    f"{path} has frames of {width} x {height} pixels; frames above"
                    f" {MAX_PIXELS:,} pixels are refused"
                )
            rate = stream.average_rate or stream.guessed_rate
            self.rate = float(rate) if rate else None
            expected = self._expected(container, stream)
            times = self._read_times(container, stream)
        self.count = len(times)
        # Without unique times, frames are counted.
        known = sorted(time for time in times if time is not None)
        unique = len(set(known)) == len(times)
        self._index = {time: index for index, time in enumerate(known)} if unique else {}
        if self.count < expected - (0 if stream.frames else 2):
            self.problem = f"{path} is truncated: {self.count} of {expected} frames can be read"
        self.size = self._oriented(width, height)

    def _open(self) -> Any:
        import av

        try:
            container = av.open(str(self.path), metadata_errors="replace")
        except (av.error.FFmpegError, ValueError) as error:
            reason = str(error).partition("'")[0].strip(": ")[:200]
            raise ValueError(f"{self.path} is not a video that can be read ({reason})") from None
        if not container.streams.video:
            container.close()
            raise ValueError(f"{self.path} has no video stream")
        return container

    def _expected(self, container: Any, stream: Any) -> int:
        """Number of frames according to the header; 0 if it does not tell."""
        if stream.frames or not container.duration or not self.rate:
            return stream.frames
        # Microseconds.
        return round(container.duration / 1e6 * self.rate)

    def _read_times(self, container: Any, stream: Any) -> list[int | None]:
        """Presentation times of all packets, without decoding them."""
        import av

        times = []
        try:
            for packet in container.demux(stream):
                if packet.size and not packet.is_discard:
                    times.append(packet.pts)
        except av.error.FFmpegError as error:
            self.problem = f"{self.path} is damaged after {len(times)} frames ({error.strerror})"
        return times

    def _oriented(self, width: int, height: int) -> tuple[int, int]:
        """The size after rotation, as players show the video."""
        first = next((frame for frame in self.read({0}) if frame is not None), None)
        if first is None:
            return width, height
        return first.pixels.shape[1], first.pixels.shape[0]

    def read(self, wanted: Collection[int]) -> Iterator[Frame | None]:
        last, counted = max(wanted, default=-1), 0
        with self._open() as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            start = stream.start_time or 0
            for frame in self._decode(container, stream):
                index = self._index.get(frame.pts, -1) if self._index else counted
                counted += 1
                if index > last:
                    return
                if index not in wanted or frame.is_corrupt:
                    yield None
                    continue
                seconds = (
                    None if frame.pts is None else float((frame.pts - start) * frame.time_base)
                )
                if seconds is None and self.rate:
                    seconds = index / self.rate
                # Counterclockwise, in degrees.
                turns = round(frame.rotation / 90) % 4
                yield Frame(index, seconds, np.rot90(frame.to_ndarray(format="rgb24"), turns))

    def _decode(self, container: Any, stream: Any) -> Iterator[Any]:
        """Frames in order of presentation. Packets that cannot be decoded are skipped."""
        import av

        try:
            for packet in container.demux(stream):
                try:
                    yield from packet.decode()
                except av.error.FFmpegError:
                    continue
        # The end of a truncated file; `problem` says so.
        except av.error.FFmpegError:
            return
