"""Results of the parts of a check: measured values, and checks that pass or fail."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ember_reid.tools.common.html import Table, write_html

PASS, FAIL = "PASS", "FAIL"
MAX_TEXT = 600


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: what is checked.
        passed: the result.
        detail: what was found, and what was expected.
    """

    name: str
    passed: bool
    detail: str

    @property
    def status(self) -> str:
        """PASS or FAIL."""
        return PASS if self.passed else FAIL

    def __str__(self) -> str:
        return f"{self.status}  {self.name}: {self.detail}"


@dataclass
class Result:
    """What a part has found so far.

    Attributes:
        name: of the part.
        error: why the part ended early; "" if it did not.
        values: measured values with their unit, by name.
    """

    name: str
    seconds: float = 0.0
    error: str = ""
    values: dict[str, str] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether the part is complete and all its checks passed."""
        return not self.error and all(check.passed for check in self.checks)

    def record(self, name: str, value: object) -> None:
        """Record a measured value."""
        self.values[name] = str(value)[:MAX_TEXT]

    def check(self, name: str, passed: bool, detail: object = "") -> None:
        """Record a check."""
        self.checks.append(Check(name, bool(passed), str(detail)[:MAX_TEXT]))

    def at_least(self, name: str, found: float, target: float, *, unit: str) -> None:
        """Record a check of a speed."""
        self.check(name, found >= target, f"{found:,.0f} {unit}, target {target:,.0f}")

    def at_most(self, name: str, found: float, limit: float) -> None:
        """Record a check of a difference."""
        self.check(name, found <= limit, f"{found:.2e}, limit {limit:.0e}")


def save(path: Path, result: Result) -> None:
    """Write a result as JSON, atomically."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(asdict(result), indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def load(path: Path) -> Result:
    """Read a result.

    Raises:
        OSError, ValueError: the file is missing or damaged.
    """
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    checks = [Check(**check) for check in content.pop("checks")]
    return Result(**content, checks=checks)


def write_summary(folder: Path, results: Sequence[Result], titles: Mapping[str, str]) -> None:
    """Write `check.json` and `index.html` with everything that is known so far.

    Args:
        titles: of all parts, also those that have not run, by name.
    """
    content = {"passed": all(result.passed for result in results), "parts": []}
    content["parts"] = [asdict(result) for result in results]
    temporary = folder / f".check.{os.getpid()}.tmp"
    temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, folder / "check.json")
    done = {result.name for result in results}
    failed = [result.name for result in results if not result.passed]
    page = {
        "title": "GPU check",
        "failed": failed,
        "verdict": f"failed: {', '.join(failed)}" if failed else "all checks passed so far",
        "parts": [(titles[result.name], result, _tables(result)) for result in results],
        "missing": [title for name, title in titles.items() if name not in done],
    }
    write_html(folder / "index.html", "check_gpu.html", page)


def _tables(result: Result) -> list[Table]:
    checks = tuple((check.status, check.name, check.detail) for check in result.checks)
    values = tuple(result.values.items())
    return [
        Table(head, rows)
        for head, rows in ((("", "check", "result"), checks), (("value", ""), values))
        if rows
    ]
