"""Checks of the labels that MODEL.SIE uses: cameras and viewpoints."""

from collections.abc import Sequence

from ember_reid.data.records import UNKNOWN_VIEW, Splits


def check_cameras(parts: Sequence[Splits], num_cameras: int) -> None:
    """Check that MODEL.SIE.CAMERAS fits the cameras of all records; 0 fits any.

    Raises:
        ValueError: a record has another camera, or the training records have a single one.
    """
    if not num_cameras:
        return
    for splits in parts:
        unknown = sorted({r.camid for r in splits.records() if not 0 <= r.camid < num_cameras})
        if unknown:
            raise ValueError(
                f"MODEL.SIE.CAMERAS is {num_cameras}, but {splits.name} has images of camera "
                f"{', '.join(str(camid + 1) for camid in unknown[:5])}; set it to the number of "
                "cameras of training and test sets, or to 0"
            )
        if splits.train and len({record.camid for record in splits.train}) == 1:
            raise ValueError(
                f"MODEL.SIE.CAMERAS is {num_cameras}, but the training images of {splits.name} "
                "have no camera labels, or a single camera; set it to 0"
            )


def check_views(parts: Sequence[Splits], num_views: int) -> None:
    """Check that MODEL.SIE.VIEWS fits the viewpoints of all training records; 0 fits any.

    Raises:
        ValueError: no training record has a viewpoint, or one has another viewpoint.
    """
    if not num_views:
        return
    for splits in parts:
        views = {record.viewid for record in splits.train} - {UNKNOWN_VIEW}
        if splits.train and not views:
            raise ValueError(
                f"MODEL.SIE.VIEWS is {num_views}, but the training images of {splits.name} have no "
                "viewpoint labels; put keypoint_train.txt and keypoint_test.txt of "
                "github.com/Zhongdao/VehicleReIDKeyPointData into the folder of VeRi-776, or set "
                "it to 0"
            )
        if max(views, default=0) >= num_views:
            raise ValueError(
                f"MODEL.SIE.VIEWS is {num_views}, but {splits.name} has images of viewpoint "
                f"{max(views)}, counted from 0; set it to {max(views) + 1} or to 0"
            )
