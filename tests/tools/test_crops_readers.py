"""Annotation files of all formats become the same boxes; hostile files end in one line."""

import json

import pytest
from ember_reid.tools.crops import boxes, readers
from ember_reid.tools.crops.boxes import Annotations, Box, image_name
from ember_reid.tools.crops.readers import FORMATS, detect_format, read_annotations

# One track "7" with the box (10, 20, 30, 40) in frames 0 and 1 of a video of 100 x 200 pixels.
SIDES = [10, 20, 30, 40]
COCO = {
    "images": [
        {"id": 5, "file_name": "a/f0.jpg", "frame_id": 0, "width": 100, "height": 200},
        {"id": 6, "file_name": "a/f1.jpg", "frame_id": 1, "width": 100, "height": 200},
    ],
    "annotations": [
        {"image_id": 5, "bbox": SIDES, "track_id": 7, "category_id": 1},
        {"image_id": 6, "bbox": SIDES, "attributes": {"track_id": 7}, "category_id": 1},
    ],
    "categories": [{"id": 1, "name": "cow"}],
}
KEYS = [
    {"frame": 1, "x": 10, "y": 10, "width": 30, "height": 20, "enabled": True},
    {"frame": 2, "x": 10, "y": 10, "width": 30, "height": 20, "enabled": False},
]
STUDIO = [
    {
        "id": 1,
        "annotations": [
            {
                "result": [
                    {
                        "type": "videorectangle",
                        "id": "xYz",
                        "meta": {"text": ["7"]},
                        "value": {"sequence": KEYS, "labels": ["cow"]},
                    }
                ]
            }
        ],
    }
]
CVAT = """<?xml version="1.0"?><annotations>
<meta><task><original_size><width>100</width><height>200</height></original_size></task></meta>
<track id="7" label="cow">
<box frame="0" outside="0" xtl="10" ytl="20" xbr="40" ybr="60"/>
<box frame="1" outside="0" xtl="10" ytl="20" xbr="40" ybr="60"/>
<box frame="2" outside="1" xtl="10" ytl="20" xbr="40" ybr="60"/>
</track></annotations>"""
CVAT_IMAGES = """<annotations><image id="0" name="a/f0.jpg" width="100" height="200">
<box label="cow" xtl="10" ytl="20" xbr="40" ybr="60"><attribute name="track_id">7</attribute></box>
</image></annotations>"""
FILES = {
    "mot": "1,7,10,20,30,40,1,cow,1\n2,7,10,20,30,40,1,cow,1\n3,7,10,20,30,40,0,cow,1\n",
    "coco": json.dumps(COCO),
    "label-studio": json.dumps(STUDIO),
    "cvat": CVAT,
    "csv": "frame,track,x1,y1,x2,y2,class\n0,7,10,20,40,60,cow\n1,7,10,20,40,60,cow\n",
}


def write(folder, text, name="tracks"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def pixels(box: Box) -> tuple[float, ...]:
    width, height = (100, 200) if box.relative else (1, 1)
    return (box.left * width, box.top * height, box.width * width, box.height * height)


@pytest.mark.parametrize("name", FILES)
def test_every_format_is_recognized_and_gives_the_same_boxes(name, tmp_path):
    path = write(tmp_path, FILES[name])
    assert detect_format(path) == name
    read = read_annotations(path)
    assert [box.frame - read.first_frame for box in read.boxes] == [0, 1]
    for box in read.boxes:
        assert (box.track, box.label) == ("7", "cow")
        assert pixels(box) == pytest.approx(SIDES)


def test_yolo_labels_are_named_like_their_images(tmp_path):
    folder = tmp_path / "labels"
    folder.mkdir()
    # Center and size as fractions; confidence, then track.
    write(folder, "0 0.25 0.2 0.3 0.2 0.9 7\n0 0.25 0.2 0.3 0.2 0.9\n", "video_1.txt")
    write(folder, "0 0.25 0.2 0.3 0.2 7\n", "video_2.txt")
    write(folder, "cow\n", "classes.txt")
    read = read_annotations(folder)
    assert [(box.name, box.track) for box in read.boxes] == [
        ("video_1", "7"),
        ("video_1", ""),
        ("video_2", "7"),
    ]
    assert all(pixels(box) == pytest.approx(SIDES) for box in read.boxes)


def test_cvat_images_have_names_and_tracks_in_attributes(tmp_path):
    (box,) = read_annotations(write(tmp_path, CVAT_IMAGES)).boxes
    assert (box.frame, box.name, box.track, pixels(box)) == (None, "f0", "7", tuple(SIDES))


def test_label_studio_rectangles_belong_to_images(tmp_path):
    value = {"x": 10, "y": 10, "width": 30, "height": 20, "rectanglelabels": ["cow"]}
    region = {"type": "rectanglelabels", "value": value, "meta": {"text": ["bella"]}}
    task = {"data": {"image": "/upload/1/ab12-f0.jpg"}, "annotations": [{"result": [region]}]}
    (box,) = read_annotations(write(tmp_path, json.dumps([task]))).boxes
    assert (box.name, box.track, box.label) == ("ab12-f0", "bella", "cow")
    assert pixels(box) == pytest.approx(SIDES)


def test_label_studio_interpolates_between_keyframes(tmp_path):
    tasks = json.loads(json.dumps(STUDIO))
    sequence = tasks[0]["annotations"][0]["result"][0]["value"]["sequence"]
    sequence[1] |= {"frame": 5, "x": 50}
    read = read_annotations(write(tmp_path, json.dumps(tasks)))
    assert [(box.frame, box.left) for box in read.boxes] == [
        (1, 0.1),
        (2, pytest.approx(0.2)),
        (3, pytest.approx(0.3)),
        (4, pytest.approx(0.4)),
        (5, 0.5),
    ]


def test_boxes_without_area_are_counted(tmp_path):
    read = read_annotations(write(tmp_path, "1,1,0,0,0,9,1\n1,2,0,0,nan,9,1\n1,3,0,0,5,5,1\n"))
    assert (len(read.boxes), read.num_invalid) == (1, 2)


def test_folders_in_names_of_images_are_not_used():
    assert image_name("../../etc/f0.jpg") == image_name("C:\\f0.jpg") == "f0"


BOMB = """<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><annotations>&b;</annotations>"""
DEEP = "[" * 100_000
ERRORS = [
    ("cvat", BOMB, "has a DOCTYPE; such files are refused"),
    ("cvat", "<annotations>", "is not XML (no element found"),
    ("cvat", '<a><track id="1"><box frame="0"/></track></a>', "None' is not a number"),
    ("coco", DEEP, "is nested too deeply"),
    ("coco", '{"images": NaN}', "NaN is not a number"),
    ("coco", "[]", "images must be a list of objects"),
    ("coco", '{"images": [], "annotations": [{"image_id": 1}]}', "there is no image 1"),
    ("coco", '{"images": [{"video_id": 1}, {"video_id": 2}]}', "describes 2 videos"),
    ("label-studio", "{}", "must be a list of tasks"),
    ("mot", "1,2,3\n", "line 1: 3 values, expected frame, track"),
    ("mot", "1,a,3,4,5,6\n", "'a' is not a number"),
    ("mot", "1.5,1,3,4,5,6\n", "'1.5' is not a whole number"),
    ("mot", "-4,1,3,4,5,6\n", "frame -4 is not in 0.."),
    ("yolo", "0 1 1\n", "line 1: 3 values, expected class x y width height"),
    ("csv", "a,b\n1,2\n", "no column frame or image"),
    ("csv", "frame,x,y,w,h\n0,1,2,3,b\n", "'b' is not a number"),
]


@pytest.mark.parametrize(("format", "text", "message"), ERRORS)
def test_files_of_another_kind_are_refused_in_one_line(format, text, message, tmp_path):
    with pytest.raises(ValueError) as caught:
        read_annotations(write(tmp_path, text), format=format)
    assert message in str(caught.value) and len(str(caught.value)) < 400


def test_sizes_are_bounded(tmp_path, monkeypatch):
    path = write(tmp_path, FILES["mot"])
    monkeypatch.setattr(boxes, "MAX_BOXES", 1)
    with pytest.raises(ValueError, match="has more than 1 boxes"):
        read_annotations(path)
    monkeypatch.setattr(boxes, "MAX_BYTES", 10)
    with pytest.raises(ValueError, match="has more than 10 bytes"):
        read_annotations(path)
    tasks = json.loads(json.dumps(STUDIO))
    tasks[0]["annotations"][0]["result"][0]["value"]["sequence"][1]["frame"] = 10**8
    monkeypatch.undo()
    with pytest.raises(ValueError, match="a track has more than 10,000,000 frames"):
        read_annotations(write(tmp_path, json.dumps(tasks)))


def test_unknown_files_name_the_formats(tmp_path):
    with pytest.raises(ValueError, match="is not recognized; choose one of mot, yolo, coco"):
        read_annotations(write(tmp_path, "hello\n"))
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_annotations(tmp_path / "nowhere")
    assert set(FORMATS) == {"mot", "yolo", "coco", "cvat", "label-studio", "csv"}
    assert isinstance(readers.read_annotations(write(tmp_path, FILES["mot"])), Annotations)
