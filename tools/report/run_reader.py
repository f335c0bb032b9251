"""Read the files in the folder of a run, without its data and network."""

import hashlib
import json
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from ember_reid.config.yaml_reader import read_yaml
from ember_reid.engine.cross_domain import CROSS, CROSS_DOMAIN_FILE, SAME

# Entries of environment.json about the machine; the others are versions.
MACHINE = (
    "system",
    "processor",
    "cores",
    "GPU",
    "CUDA",
    "processes x threads",
)
# Keys that the hash of a recipe does not contain.
UNHASHED = (
    "OUTPUT_DIR",
    "OVERWRITE",
    "LOG",
    "DEVICE",
    "NUM_PROCESSES",
    "NUM_THREADS",
)


@dataclass(frozen=True)
class Run:
    """The files of a run; entries of missing files are empty.

    Attributes:
        config: config.yml.
        train: rows of metrics.jsonl: {"epoch", "iteration", values...}.
        tests: the same for each test set.
        results: results.json.
        distillation: distillation.json.
        cross_domain: cross_domain.json.
        calibration: the calibration file beside the weights.
        weights_hash: SHA-256 of the weights.
        machine: the line of log.txt that describes network, device and data.
        starts: environment.json, one entry for each start of the run.
    """

    name: str
    folder: Path
    config: dict
    train: tuple[dict, ...]
    tests: dict[str, tuple[dict, ...]]
    results: dict[str, dict]
    distillation: dict
    cross_domain: dict
    calibration: dict
    weights: Path | None
    weights_hash: str
    machine: str
    starts: tuple[dict, ...]


def read_run(folder: Path) -> Run:
    """Read an OUTPUT_DIR.

    Raises:
        FileNotFoundError: `folder` does not exist or is not the folder of a run.
        ValueError: a file in it is damaged.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder; give the OUTPUT_DIR of a run")
    if not (folder / "config.yml").is_file() and not (folder / "results.json").is_file():
        raise FileNotFoundError(
            f"{folder} is not the folder of a run: it has neither config.yml nor results.json"
        )
    weights = next(
        (
            path
            for name in ("best", "last")
            if (path := folder / "checkpoints" / f"{name}.pt").is_file()
        ),
        None,
    )
    train, tests = _read_metrics(folder / "metrics.jsonl")
    return Run(
        name=folder.resolve().name,
        folder=folder,
        config=_read_config(folder / "config.yml"),
        train=train,
        tests=tests,
        results=_read_results(folder / "results.json"),
        distillation=_read_distillation(folder / "distillation.json"),
        cross_domain=_read_cross_domain(folder / CROSS_DOMAIN_FILE),
        calibration=_read_calibration(Path(f"{weights}.calibration.json")) if weights else {},
        weights=weights,
        weights_hash=hash_file(weights) if weights else "",
        machine=_run_description(folder / "log.txt"),
        starts=_read_starts(_environment_file(folder)),
    )


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def hash_config(config: dict) -> str:
    """SHA-256 of the keys that affect training and scores; output settings are left out."""
    kept = {key: value for key, value in config.items() if key not in UNHASHED}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _read_config(path: Path) -> dict:
    return read_yaml(_read_text(path), str(path)) if path.is_file() else {}


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def _read_json(path: Path, *, kind: type = dict) -> Any:
    """The content of a JSON file, or an empty object if there is no file."""
    if not path.is_file():
        return kind()
    try:
        content = json.loads(_read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    _require(isinstance(content, kind), path, f"it must contain a {kind.__name__}")
    return content


def _require(condition: bool, path: Path, rule: str) -> None:
    if not condition:
        raise ValueError(f"{path} is damaged: {rule}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _read_results(path: Path) -> dict[str, dict]:
    """results.json: numbers and texts of each dataset, and those after re-ranking."""
    results = _read_json(path)
    for scores in results.values():
        _require(isinstance(scores, dict), path, "the scores of a dataset must be an object")
        reranked = scores.get("reranked") or {}
        _require(isinstance(reranked, dict), path, "`reranked` must be an object")
        values = [*scores.values(), *reranked.values()]
        known = all(isinstance(v, int | float | str | dict | None) for v in values)
        _require(known, path, "scores must be numbers")
    return results


def _read_distillation(path: Path) -> dict:
    """distillation.json: one row of numbers for each network."""
    content = _read_json(path)
    rows = content.get("rows", [])
    _require(isinstance(rows, list), path, "`rows` must be a list")
    for row in rows:
        _require(isinstance(row, dict) and isinstance(row.get("name"), str), path, "no `name`")
        numbers = ("mAP", "rank1", "parameters", "gflops", "milliseconds")
        for key in numbers:
            _require(_is_number(row.get(key)), path, f"`{key}` must be a number")
    return content


def _read_cross_domain(path: Path) -> dict:
    """cross_domain.json: the domain of each test set, and mean scores."""
    content = _read_json(path)
    if not content:
        return {}
    tests, mean = content.get("tests"), content.get("mean")
    _require(isinstance(tests, dict) and isinstance(mean, dict), path, "no `tests` or no `mean`")
    for row in tests.values():
        known = isinstance(row, dict) and row.get("domain") in (SAME, CROSS)
        _require(known, path, f"`domain` must be {SAME} or {CROSS}")
    for value in mean.values():
        _require(_is_number(value), path, "`mean` must contain numbers")
    return content


def _read_calibration(path: Path) -> dict:
    """The calibration file: the threshold, and error rates in rows."""
    content = _read_json(path)
    if not content:
        return {}
    for key in ("threshold", "false_match_rate"):
        _require(_is_number(content.get(key)), path, f"`{key}` must be a number")
    rows = content.get("fnmr_at_fmr", [])
    _require(isinstance(rows, list), path, "`fnmr_at_fmr` must be a list")
    for row in rows:
        _require(isinstance(row, dict), path, "a row of `fnmr_at_fmr` must be an object")
        for key in ("fmr", "threshold", "fnmr"):
            _require(_is_number(row.get(key)), path, f"`{key}` must be a number")
    return content


def _environment_file(folder: Path) -> Path:
    """environment.json, or made_with.json as in older runs."""
    current = folder / "environment.json"
    return current if current.is_file() else folder / "made_with.json"


def _read_starts(path: Path) -> tuple[dict, ...]:
    """The environment at each start of the run, () if it was not recorded."""
    return tuple(one for one in _read_json(path, kind=list) if isinstance(one, dict))


def _read_metrics(path: Path) -> tuple[tuple[dict, ...], dict[str, tuple[dict, ...]]]:
    """Rows of training, and of each test set; an incomplete last line is left out."""
    train: list[dict] = []
    tests: dict[str, list[dict]] = {}
    lines = _read_text(path).splitlines() if path.is_file() else []
    for number, line in enumerate(lines, start=1):
        try:
            what, row = _read_metrics_line(line)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            if number == len(lines):
                break
            raise ValueError(f"{path}, line {number} is not a row of metrics") from error
        if what == "train":
            train.append(row)
        elif what.startswith("test/"):
            tests.setdefault(what.removeprefix("test/"), []).append(row)
    return tuple(train), {name: tuple(rows) for name, rows in tests.items()}


def _read_metrics_line(line: str) -> tuple[str, dict]:
    row = json.loads(line)
    position = {"epoch": row["epoch"], "iteration": row["iteration"]}
    if not all(_is_number(value) for value in position.values()):
        raise ValueError("epoch and iteration must be numbers")
    if not isinstance(row["what"], str):
        raise TypeError("`what` must be text")
    return row["what"], {**position, **row["values"]}


def _run_description(path: Path) -> str:
    """The line of log.txt that describes the network, the device and the data."""
    if not path.is_file():
        return ""
    with open(path, encoding="utf-8", errors="replace") as file:
        lines = [line for line, _ in zip(file, range(50), strict=False)]
    return next(
        (line.split("INFO: ", 1)[-1].strip() for line in lines if "process(es)" in line), ""
    )


def flatten(config: dict, prefix: str = "") -> dict[str, Any]:
    """Nested configuration -> {"SOLVER.BASE_LR": value}."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def describe_environment(starts: tuple[dict, ...]) -> dict[str, str]:
    """Describe commit, versions, machine and starts; lists values that changed on resume."""
    if not starts:
        return {"Versions": "not recorded (an old run, or a test without training)"}
    found: dict[str, str] = {}
    for key in dict.fromkeys(key for start in starts for key in start):
        found[key] = ", then ".join(dict.fromkeys(str(start.get(key, "none")) for start in starts))
    machine = {key: value for key, value in found.items() if key in MACHINE}
    others = {
        key: value
        for key, value in found.items()
        if key not in ("commit", "time", "iteration", *MACHINE)
    }
    times = [f"{start.get('time')} after iteration {start.get('iteration')}" for start in starts]
    return {
        "Commit": found.get("commit", "unknown"),
        "Versions": ", ".join(f"{key} {value}" for key, value in others.items()),
        "Machine": ", ".join(f"{key} {value}" for key, value in machine.items()),
        "Started": "; ".join(times),
    }


def fingerprint(run: Run) -> dict[str, str]:
    """What scores depend on: recipe, weights, batch, protocol, seed, versions, commit."""
    flat = flatten(run.config)
    images, instances = flat.get("SOLVER.IMS_PER_BATCH"), flat.get("DATALOADER.NUM_INSTANCES")
    geometry = ""
    if isinstance(images, int) and isinstance(instances, int) and instances > 0:
        geometry = f"{images} images"
        if flat.get("DATALOADER.SAMPLER", "identity") != "random":
            geometry += f" = {images // instances} identities x {instances}"
        steps = flat.get("SOLVER.ACCUMULATION_STEPS", 1)
        geometry += f", {steps} forward pass(es) per step, mining {flat.get('SOLVER.MINING')}"
    protocols = dict.fromkeys(scores.get("protocol") for scores in run.results.values()) or (None,)
    protocol = " and ".join(str(one or flat.get("TEST.PROTOCOL")) for one in protocols)
    scoring = (
        f"{flat.get('TEST.METRIC')}, {protocol}, embedding {flat.get('TEST.NECK_FEAT')} the neck"
    )
    scoring += ", flip averaging" if flat.get("TEST.FLIP") else ""
    chosen = "held-out identities" if flat.get("TEST.VALIDATION") else "the test set"
    found = {
        "Recipe (SHA-256)": hash_config(run.config)[:16] if run.config else "",
        "Weights (SHA-256)": f"{run.weights_hash[:16]}  {run.weights.name}" if run.weights else "",
        "Initial weights": str(flat.get("MODEL.BACKBONE.WEIGHTS", "")),
        "Network": f"{flat.get('MODEL.BACKBONE.NAME')}, head {flat.get('MODEL.HEAD.NAME')}",
        "Input": f"{flat.get('INPUT.SIZE_TEST')} (height, width)",
        "Batch": geometry,
        "Trained on": ", ".join(map(str, flat.get("DATASETS.NAMES") or ())),
        "Scored by": scoring,
        "Checkpoint chosen on": chosen,
        "Seed": str(flat.get("SEED", "")),
        "Run": run.machine,
    }
    found = {
        key: value
        for key, value in found.items()
        if value and (run.config or "SHA" in key or key == "Run")
    }
    return found | describe_environment(run.starts)
