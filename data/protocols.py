"""Evaluation protocols: what asks, what answers, and the rule that scores."""

from ember_reid.data.records import CROSS_CAMERA, PROTOCOLS, Record, Splits

VIDEO_TO_VIDEO = "video-to-video"
IMAGE_TO_VIDEO = "image-to-video"
VIDEO_TO_IMAGE = "video-to-image"
IMAGE_TO_IMAGE = "image-to-image"
MODES = (VIDEO_TO_VIDEO, IMAGE_TO_VIDEO, VIDEO_TO_IMAGE, IMAGE_TO_IMAGE)
CHOICES = ("auto", *PROTOCOLS, *MODES)  # of TEST.PROTOCOL


def apply_protocol(splits: Splits, protocol: str) -> Splits:
    """The dataset under `protocol`: "auto" keeps its own, a scoring rule replaces it, a mode changes the
    records too.

    An image that asks is the first frame of its tracklet, images that answer are all frames of the gallery
    (VKD, Porrello et al. 2020). Raises ValueError for an unknown protocol.
    """
    if protocol == "auto":
        return splits
    if protocol in PROTOCOLS:
        return splits._replace(protocol=protocol)
    if protocol not in MODES:
        raise ValueError(f'TEST.PROTOCOL is "{protocol}"; choose one of {", ".join(CHOICES)}')
    asks, answers = protocol.split("-to-")
    query, gallery = splits.query, splits.gallery
    if asks == "image":
        query = tuple(record._replace(paths=record.paths[:1]) for record in query)
    if answers == "image":
        gallery = tuple(Record((path,), r.pid, r.camid) for r in gallery for path in r.paths)
    return splits._replace(query=query, gallery=gallery, protocol=protocol)


def scoring_rule(protocol: str) -> str:
    """The rule of `data.records.PROTOCOLS` that scores a protocol: cross-camera for the four modes."""
    return CROSS_CAMERA if protocol in MODES else protocol
