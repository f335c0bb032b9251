"""YOLO: a folder with one text file per image, with lines "class x y width height [conf] [id]"."""

from pathlib import Path

from ember_reid.tools.crops.boxes import Annotations, Box, clean_label, parse_float, read_text


def read(path: Path) -> Annotations:
    """Read the labels of a data set, or those that `yolo track save_txt=True` wrote.

    The name of a file is that of its image. For a video, the number at its end is the frame, from
    1. A sixth column is the track if it is a whole number, and the confidence otherwise.

    Raises:
        FileNotFoundError, ValueError: with the file and the line.
    """
    annotations = Annotations(path, first_frame=1)
    files = sorted(path.glob("*.txt")) if path.is_dir() else [path]
    for file in files:
        # A list of class names that some exports contain.
        if file.name in ("classes.txt", "labels.txt"):
            continue
        for number, line in enumerate(read_text(file).splitlines(), start=1):
            if line.strip():
                annotations.add(_parse(line.split(), file, f"{file}, line {number}"))
    if not files:
        raise FileNotFoundError(f"there is no .txt file in {path}")
    return annotations


def _parse(words: list[str], file: Path, where: str) -> Box:
    if not 5 <= len(words) <= 7:
        raise ValueError(f"{where}: {len(words)} values, expected class x y width height [conf id]")
    x, y, width, height = (parse_float(word, where) for word in words[1:5])
    has_track = len(words) == 7 or len(words) == 6 and words[5].isdigit()
    return Box(
        frame=None,
        name=file.stem,
        track=clean_label(words[-1]) if has_track else "",
        left=x - width / 2,
        top=y - height / 2,
        width=width,
        height=height,
        label=clean_label(words[0]),
        relative=True,
    )
