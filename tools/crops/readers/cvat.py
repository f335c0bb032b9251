"""CVAT: the XML files "CVAT for video" and "CVAT for images"."""

from pathlib import Path
from xml.parsers import expat

from ember_reid.tools.crops.boxes import (
    Annotations,
    Box,
    clean_label,
    image_name,
    parse_float,
    parse_int,
    read_bytes,
)

# Attributes of a box in "CVAT for images" that contain its track.
TRACK_ATTRIBUTES = ("track_id", "identity", "id")


class _Handler:
    """Collects boxes from the elements of a file."""

    def __init__(self, annotations: Annotations, path: Path) -> None:
        self.annotations = annotations
        self.path = path
        self.track: dict[str, str] = {}
        self.image: dict[str, str] = {}
        self.box: dict[str, str] | None = None
        self.attributes: dict[str, str] = {}
        self.attribute = ""
        self.text = ""
        self.size: dict[str, str] = {}

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self.text = ""
        if name == "track":
            self.track = attributes
        elif name == "image":
            self.image = attributes
        elif name == "box":
            self.box, self.attributes = attributes, {}
        elif name == "attribute":
            self.attribute = attributes.get("name", "")

    def data(self, text: str) -> None:
        self.text = (self.text + text)[:1000]

    def end(self, name: str) -> None:
        if name == "attribute":
            self.attributes[self.attribute] = self.text
        elif name in ("width", "height"):
            self.size[name] = self.text
        elif name == "original_size":
            width, height = (self.size.get(side, "") for side in ("width", "height"))
            self.annotations.size = parse_int(width, "width"), parse_int(height, "height")
        elif name == "box" and self.box is not None:
            self.add(self.box)
            self.box = None
        elif name == "track":
            self.track = {}

    def add(self, box: dict[str, str]) -> None:
        """A box; `outside` marks frames in which the object is not in the view."""
        if box.get("outside") == "1":
            return
        where = f"{self.path}, box of frame {box.get('frame', self.image.get('name', '?'))[:60]}"
        left, top, right, bottom = (
            parse_float(box.get(key), where) for key in ("xtl", "ytl", "xbr", "ybr")
        )
        track = self.track.get("id", "")
        if not self.track:
            found = [self.attributes[key] for key in TRACK_ATTRIBUTES if key in self.attributes]
            track = found[0] if found else ""
        self.annotations.add(
            Box(
                frame=parse_int(box["frame"], where) if "frame" in box else None,
                name=image_name(self.image.get("name", "")) if not self.track else "",
                track=clean_label(track),
                left=left,
                top=top,
                width=right - left,
                height=bottom - top,
                label=clean_label(box.get("label", self.track.get("label", ""))),
            )
        )


def read(path: Path) -> Annotations:
    """Read boxes; frames count from 0. Nothing is expanded and nothing else is opened.

    Raises:
        FileNotFoundError, ValueError: the file is damaged, of another kind, or has a DOCTYPE,
            which could define entities.
    """
    annotations = Annotations(path, first_frame=0)
    handler = _Handler(annotations, path)

    def refuse(*_: object) -> None:
        raise ValueError(f"{path} has a DOCTYPE; such files are refused")

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = handler.start
    parser.EndElementHandler = handler.end
    parser.CharacterDataHandler = handler.data
    try:
        parser.Parse(read_bytes(path), True)
    except expat.ExpatError as error:
        raise ValueError(f"{path} is not XML ({error})") from None
    return annotations
