from dataclasses import replace
from pathlib import Path

import pytest
from ember_reid.data.protocols import MODES, SCORING_RULES, apply_protocol
from ember_reid.data.records import Record, Splits

QUERY = (Record((Path("a"), Path("b")), 1, 0),)
GALLERY = (Record((Path("c"), Path("d")), 1, 1), Record((Path("e"),), 2, 2))
SPLITS = Splits((), QUERY, GALLERY)


def test_auto_and_rules_keep_the_records():
    assert apply_protocol(SPLITS, "auto") is SPLITS
    assert apply_protocol(SPLITS, "all") == replace(SPLITS, protocol="all")


@pytest.mark.parametrize("mode", MODES)
def test_modes_choose_images_or_tracklets(mode):
    changed = apply_protocol(SPLITS, mode)
    query_kind, gallery_kind = mode.split("-to-")
    assert changed.query == (QUERY if query_kind == "video" else (Record((Path("a"),), 1, 0),))
    if gallery_kind == "video":
        assert changed.gallery == GALLERY
    else:
        assert [(str(*r.paths), r.pid, r.camid) for r in changed.gallery] == [
            ("c", 1, 1),
            ("d", 1, 1),
            ("e", 2, 2),
        ]
    assert changed.protocol == mode and SCORING_RULES[mode] == "cross-camera"


def test_rules_score_themselves_and_unknown_names_list_the_choices():
    assert SCORING_RULES["single-shot"] == "single-shot"
    with pytest.raises(
        ValueError, match='TEST.PROTOCOL is "best"; choose one of auto, cross-camera, all'
    ):
        apply_protocol(SPLITS, "best")
