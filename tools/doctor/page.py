"""The doctor's report as one HTML file that opens offline."""

from html import escape
from pathlib import Path

STYLE = """
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif; }
body { margin: 0 auto; padding: 1rem; max-width: 60rem; }
h1 { font-size: 1.4rem; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
pre { overflow-x: auto; background: #8882; padding: .6rem; border-radius: 4px; }
.verdict { font-weight: 600; padding: .5rem .8rem; border-radius: 4px; color: #fff; }
.good { background: #1d7f3b; } .bad { background: #b3261e; }
.finding { border-left: 5px solid #888; padding: .1rem .7rem; margin: .5rem 0; overflow-wrap: anywhere; }
.error { border-color: #b3261e; } .warning { border-color: #c98a00; } .note { border-color: #3a60be; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(18rem, 1fr)); gap: 0 2rem; }
table { border-collapse: collapse; width: 100%; font-size: .85rem; }
td { padding: .1rem .3rem; } td:first-child, td:last-child { white-space: nowrap; width: 1%; }
td:last-child { text-align: right; font-variant-numeric: tabular-nums; }
.bar { background: #3a60be; height: .8rem; border-radius: 2px; }
small { opacity: .8; }
"""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
<p class="verdict {kind}">{verdict}</p>
<pre>{table}</pre>
<h2>Findings</h2>
{findings}
<h2>Advice</h2>
<ul>{advice}</ul>
<div class="charts">
{charts}
</div>
</body>
</html>
"""


def write_page(path: Path, report) -> None:
    """Write a `tools.doctor.Report`."""
    page = PAGE.format(
        title=escape(report.title),
        style=STYLE,
        kind="bad" if report.fails else "good",
        verdict="Training on it would fail" if report.fails else "It can be trained on",
        table=escape(report.table),
        findings="\n".join(_finding(f) for f in report.findings)
        or "<p>Nothing to complain about.</p>",
        advice="".join(f"<li>{escape(line)}</li>" for line in report.advice),
        charts="\n".join(_chart(chart) for chart in report.charts),
    )
    path.write_text(page, encoding="utf-8")


def _finding(finding) -> str:
    examples = "".join(f"<br><small>{escape(example)}</small>" for example in finding.examples)
    return f'<p class="finding {finding.level}"><b>{finding.level}</b>: {escape(finding.text)}{examples}</p>'


def _chart(chart) -> str:
    most = max((count for _, count in chart.rows), default=1)
    rows = "".join(
        f'<tr><td>{escape(label)}</td><td><div class="bar" style="width:{100 * count / most:.1f}%"></div>'
        f"</td><td>{count}</td></tr>"
        for label, count in chart.rows
    )
    return f"<section><h2>{escape(chart.title)}</h2><table>{rows}</table></section>"
