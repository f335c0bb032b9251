"""The answers of tools.search as one HTML page that holds its pictures and needs nothing else."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from io import BytesIO
from pathlib import Path

from ember_reid.data.images import ImageError, open_image

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 1rem auto; max-width: 70rem; padding: 0 1rem; color: #222; }
h2 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; overflow-wrap: anywhere; }
.row { display: flex; flex-wrap: wrap; gap: .6rem; }
figure { margin: 0; width: 7rem; border: 4px solid #bbb; border-radius: 4px; font-size: .75rem; }
figure img { width: 100%; height: 12rem; object-fit: contain; display: block; background: #eee; }
figcaption { padding: .2rem .3rem; overflow-wrap: anywhere; }
.query { border-color: #3a60be; } .same { border-color: #26a04c; } .other { border-color: #bbb; border-style: dashed; }
"""
HEIGHT = 192  # of a picture, pixels


def write_page(path: Path, queries: Sequence[Mapping], *, facts: Sequence[str]) -> None:
    """`queries` as they are in search.json."""
    body = "".join(f"<p>{escape(fact)}</p>\n" for fact in facts)
    body += "".join(_section(query) for query in queries)
    path.write_text(
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Search</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>Search</h1>\n{body}</body>\n</html>\n",
        encoding="utf-8",
    )


def _section(query: Mapping) -> str:
    figures = [_figure(query["path"], "query", ["query"])]
    for answer in query["answers"]:
        kind = "same" if answer["same"] else "other"
        lines = [
            f"{answer['rank']}. {answer['distance']:.3f}",
            *([answer["pid"]] if answer["pid"] else []),
        ]
        verdict = {True: "same", False: "not the same", None: ""}[answer["same"]]
        figures.append(
            _figure(answer["path"], kind, [" ".join([*lines, verdict]).strip(), answer["path"]])
        )
    return (
        f"<h2>{escape(query['path'])}: {escape(query['decision'])}</h2>\n"
        f'<div class="row">\n{"".join(figures)}</div>\n'
    )


def _figure(path: str, kind: str, lines: Sequence[str]) -> str:
    caption = "<br>".join(escape(line) for line in lines)
    return f'<figure class="{kind}">{_picture(path)}<figcaption>{caption}</figcaption></figure>\n'


def _picture(path: str) -> str:
    try:
        picture = open_image(Path(path))
    except ImageError:
        return "<p>(the picture is not there any more)</p>"
    picture.thumbnail((2 * HEIGHT, HEIGHT))
    data = BytesIO()
    picture.save(data, "JPEG", quality=85)
    return f'<img alt="{escape(path)}" src="data:image/jpeg;base64,{b64encode(data.getvalue()).decode()}">'
