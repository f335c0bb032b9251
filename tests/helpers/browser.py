"""Pages in a real browser, if there is one."""

import re
import shutil
import subprocess
from pathlib import Path

CHROMIUM = next(
    (
        path
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (path := shutil.which(name))
    ),
    None,
)


def run_in_browser(page: Path, script: str, folder: Path, *, width: int) -> str:
    """Run a script at the end of a page; returns what it leaves in `document.title`.

    Args:
        page: the file.
        folder: for a copy of the page with the script, and for the browser's files.
        width: of the window in pixels.
    """
    probed = folder / "probed.html"
    probed.write_text(page.read_text().replace("</body>", f"<script>{script}</script></body>"))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
    flags += ["--disable-background-networking", "--disable-component-update"]
    flags += [f"--user-data-dir={folder / 'profile'}", f"--window-size={width},900"]
    command = [str(CHROMIUM), *flags, "--dump-dom", probed.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    found = re.search("<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert found is not None
    return found.group(1)
