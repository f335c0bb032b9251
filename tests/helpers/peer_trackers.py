"""Runs the re-identification backends and trackers of BoxMOT and Ultralytics, in their environment.

    python peer_trackers.py embed boxmot|ultralytics WEIGHTS CROPS.npy OUT.npy
    python peer_trackers.py track boxmot|ultralytics WEIGHTS|none INPUT.json OUT.csv

CROPS.npy contains uint8 RGB images [N, H, W, 3] of the size of the network. INPUT.json names the
video, the detections (frame from 0, left, top, right, bottom, confidence) and the appearance
threshold, a cosine distance. OUT.csv has the columns frame, track, left, top, right, bottom. Both
programs are under the AGPL; nothing of them is part of this project.
"""

import csv
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np

# Lost tracks are kept for this many frames.
BUFFER = 80


def embed_with_boxmot(weights: str, crops: np.ndarray) -> np.ndarray:
    from boxmot.reid.core.runtime import ReID

    return ReID(Path(weights))([crop[..., ::-1] for crop in crops])


def embed_with_ultralytics(weights: str, crops: np.ndarray) -> np.ndarray:
    from ultralytics.trackers.utils.reid import ReID

    encoder = ReID(weights, device="cpu")
    # The program pads boxes by ten pixels, so crops are passed to the step after that.
    batch = encoder._crops_to_tensor([crop[..., ::-1] for crop in crops])
    features = np.asarray(encoder.model(batch))
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def read_frames(settings: dict) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(BGR image, detections [N, 5]) of all frames."""
    import av

    boxes = defaultdict(list)
    for frame, *box in settings["detections"]:
        boxes[frame].append(box)
    with av.open(settings["video"]) as container:
        for index, frame in enumerate(container.decode(video=0)):
            found = np.asarray(boxes[index], dtype=np.float32).reshape(-1, 5)
            yield frame.to_ndarray(format="bgr24"), found


def track_with_boxmot(weights: str, settings: dict) -> Iterator[tuple]:
    from boxmot.trackers.box.botsort.tracker import BotSort

    has_network = weights != "none"
    tracker = BotSort(
        track_buffer=BUFFER,
        frame_rate=30,
        use_cmc=False,
        proximity_thresh=1.0,
        appearance_thresh=settings["threshold"],
        use_embeddings=has_network,
        reid_weights=Path(weights) if has_network else None,
    )
    for index, (image, boxes) in enumerate(read_frames(settings)):
        detections = np.column_stack([boxes, np.zeros(len(boxes), np.float32)])
        for row in np.asarray(tracker.update(detections, image)):
            yield (index, int(row[4]), *row[:4])


class Detections:
    """What the tracker of Ultralytics reads of a result."""

    def __init__(self, xyxy: np.ndarray, conf: np.ndarray) -> None:
        self.xyxy, self.conf, self.cls = xyxy, conf, np.zeros(len(conf))
        size = xyxy[:, 2:] - xyxy[:, :2]
        self.xywh = np.hstack([xyxy[:, :2] + size / 2, size])

    def __len__(self) -> int:
        return len(self.conf)

    def __getitem__(self, chosen: np.ndarray) -> "Detections":
        return Detections(self.xyxy[chosen], self.conf[chosen])


def track_with_ultralytics(weights: str, settings: dict) -> Iterator[tuple]:
    from ultralytics.trackers.bot_sort import BOTSORT

    options = SimpleNamespace(
        track_high_thresh=0.5,
        track_low_thresh=0.1,
        new_track_thresh=0.6,
        track_buffer=BUFFER,
        match_thresh=0.8,
        fuse_score=False,
        gmc_method="none",
        proximity_thresh=0.0,
        appearance_thresh=1 - settings["threshold"] / 2,
        with_reid=weights != "none",
        model=weights,
        device="cpu",
    )
    tracker = BOTSORT(options)
    for index, (image, boxes) in enumerate(read_frames(settings)):
        rows = tracker.update(Detections(boxes[:, :4], boxes[:, 4]), image)
        for row in np.asarray(rows) if len(rows) else ():
            yield (index, int(row[4]), *row[:4])


def main(action: str, program: str, weights: str, source: str, out: str) -> None:
    if action == "embed":
        embed = {"boxmot": embed_with_boxmot, "ultralytics": embed_with_ultralytics}[program]
        np.save(out, np.asarray(embed(weights, np.load(source)), dtype=np.float32))
        return
    track = {"boxmot": track_with_boxmot, "ultralytics": track_with_ultralytics}[program]
    rows = track(weights, json.loads(Path(source).read_text()))
    with open(out, "w", newline="") as file:
        csv.writer(file).writerows(rows)


if __name__ == "__main__":
    main(*sys.argv[1:])
