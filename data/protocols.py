"""Evaluation protocols: which records are query and gallery, and the rule that scores them."""

from dataclasses import replace

from ember_reid.data.records import CROSS_CAMERA, PROTOCOLS, Splits

VIDEO_TO_VIDEO = "video-to-video"
IMAGE_TO_VIDEO = "image-to-video"
VIDEO_TO_IMAGE = "video-to-image"
IMAGE_TO_IMAGE = "image-to-image"
MODES = (VIDEO_TO_VIDEO, IMAGE_TO_VIDEO, VIDEO_TO_IMAGE, IMAGE_TO_IMAGE)
# Protocol -> the rule of PROTOCOLS that scores it.
SCORING_RULES = {name: name for name in PROTOCOLS} | dict.fromkeys(MODES, CROSS_CAMERA)
# The values of TEST.PROTOCOL.
CHOICES = ("auto", *PROTOCOLS, *MODES)


def apply_protocol(splits: Splits, protocol: str) -> Splits:
    """Apply an evaluation protocol to a dataset.

    "auto" keeps the dataset's own protocol. A scoring rule of `PROTOCOLS` replaces it. A mode of
    `MODES` also changes the records: an image query is the first frame of its tracklet, an image
    gallery consists of all frames of the gallery (VKD, Porrello et al. 2020).

    Raises:
        ValueError: if the protocol is unknown.
    """
    if protocol == "auto":
        return splits
    if protocol in PROTOCOLS:
        return replace(splits, protocol=protocol)
    if protocol not in MODES:
        raise ValueError(f'TEST.PROTOCOL is "{protocol}"; choose one of {", ".join(CHOICES)}')
    query_kind, gallery_kind = protocol.split("-to-")
    query, gallery = splits.query, splits.gallery
    if query_kind == "image":
        query = tuple(replace(record, paths=record.paths[:1]) for record in query)
    if gallery_kind == "image":
        gallery = tuple(replace(r, paths=(path,)) for r in gallery for path in r.paths)
    return replace(splits, query=query, gallery=gallery, protocol=protocol)
