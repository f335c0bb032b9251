"""The doctor's report as an HTML page."""

from pathlib import Path

from ember_reid.tools.common.html import write_html
from ember_reid.tools.doctor.checks import Report


def write_page(path: Path, report: Report) -> None:
    """Write the page as a single file without external resources."""
    content = {"title": report.title, "report": report, "verdict": report.verdict}
    write_html(path, "doctor.html", content)
