"""Reads run directories, including unfinished and damaged ones."""

import dataclasses
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ssljax.errors import UsageError
from ssljax.log import printable
from ssljax.overrides import complete
from ssljax.report import records
from ssljax.report.records import Calibration, Predictions
from ssljax.run import metrics
from ssljax.storage.files import PARTIAL, read_json

# A directory with any of these is a run directory.
_MARKS = ("config.json", "metrics.jsonl", "results.json", "checkpoints")


@dataclasses.dataclass(frozen=True)
class Run:
    """The content of a run directory. Missing parts are empty, and `notes` lists them."""

    path: Path
    name: str  # name of the directory in the report
    config: dict[str, Any]  # {}: unreadable; the run is then in no table of results
    rows: list[dict[str, Any]]  # rows of `metrics.jsonl`
    class_names: tuple[str, ...]
    sizes: dict[str, int]  # name of each list of the split -> its length
    starts: list[dict[str, Any]]  # content of `environment.json`
    predictions: Predictions | None
    calibration: Calibration | None  # calibration at the last step
    failure: str  # reason of a failure; "": the run has not failed
    notes: tuple[str, ...]  # messages for the reader of the report

    @property
    def step(self) -> int:
        """The last known step."""
        return self.rows[-1]["step"] if self.rows else 0

    @property
    def status(self) -> str:
        """`finished`, `unfinished`, `failed` or `unreadable`."""
        if not self.config:
            return "unreadable"
        if self.failure:
            return "failed"
        return "finished" if self.step >= self.config.get("num_steps", 0) else "unfinished"

    @property
    def versions(self) -> dict[str, str]:
        """The versions of packages at the last start."""
        return self.starts[-1]["versions"] if self.starts else {}


def find(paths: Sequence[Path]) -> list[Path]:
    """The run directories at and below `paths`, in order.

    Raises:
      UsageError: a path has none.
    """
    found = []
    for path in paths:
        below = _below(path)
        if not below:
            raise UsageError(f"--workdir={path} holds no run (no config.json below it)")
        found += below
    return list(dict.fromkeys(found))


def _below(path: Path) -> list[Path]:
    """The run directories at and below one path, sorted, without those that contain others."""
    found: list[Path] = []
    for here, directories, files in os.walk(path):
        if set(_MARKS) & {*directories, *files}:
            found.append(Path(here))
            if _is_recipe(Path(here, "config.json")):
                directories.clear()
        directories[:] = sorted(x for x in directories if not x.endswith(PARTIAL))
    above = {parent for run in found for parent in run.parents}
    return sorted(run for run in found if run not in above)


def _is_recipe(path: Path) -> bool:
    try:
        return "method" in read_json(path, lambda text: None)
    except UsageError:
        return False


def read(path: Path, name: str) -> Run:
    """Reads all readable files. All texts are single lines of printable characters."""
    notes: list[str] = []

    def tell(text: str) -> None:
        notes.append(printable(text.replace(f"{path}/", "")))

    def optional(file: str, load: Callable[[Path], Any], default: Any) -> Any:
        try:
            return load(within(path, file))
        except Exception as error:  # a file can have any content, and can vanish at any time
            if not os.path.lexists(path / file):
                tell(f"{file} is missing")
            elif isinstance(error, UsageError):
                tell(str(error)[:300])
            else:
                reason = " ".join(str(error).split())[:200]
                tell(f"{file} cannot be read ({type(error).__name__}: {reason})")
            return default

    def json_of(file: Path, **kinds: type) -> dict[str, Any]:
        return _printable(read_json(file, tell, **kinds))

    config = optional("config.json", lambda file: _config(json_of(file)), {})
    rows = optional("metrics.jsonl", lambda file: _rows(file, tell), [])
    data = optional("data.json", lambda file: json_of(file, class_names=list), {})
    split = optional("split.json", json_of, {})
    starts = optional("environment.json", lambda file: _starts(json_of(file, starts=list)), [])
    predictions = None
    if any("test/accuracy_ema" in row or "valid/accuracy_ema" in row for row in rows):
        predictions = optional("predictions.npz", records.predictions, None)
    calibration = None
    if (path / "calibration.json").exists():
        last = rows[-1]["step"] if rows else 0
        calibration = optional(
            "calibration.json", lambda file: records.calibration(json_of(file), last), None
        )
    for picture in ("labelled.png", "augment.png"):
        if (path / picture).exists():
            optional(picture, _look_at, None)
    failure = ""
    if (path / "failure.txt").exists():
        failure = optional("failure.txt", _text, "the reason cannot be read")
    run = Run(
        path=path,
        name=printable(name),
        config=config,
        rows=rows,
        class_names=tuple(map(str, data.get("class_names", ()))),
        sizes={key: len(value) for key, value in split.items() if isinstance(value, list)},
        starts=starts,
        predictions=predictions,
        calibration=calibration,
        failure=failure,
        notes=(),
    )
    return dataclasses.replace(run, notes=(*_progress(run), *notes, *_restarts(run)))


def within(run: Path, name: str) -> Path:
    """The path of a file in a run directory.

    Raises:
      ValueError: the file is a link to another place, which a report must not show.
    """
    file = run / name
    if not file.resolve().is_relative_to(run.resolve()):
        raise ValueError("it is a link out of the run directory")
    return file


def _printable(value: Any) -> Any:
    """A value of a JSON file, with all texts as single lines without control characters."""
    if isinstance(value, dict):
        return {printable(key): _printable(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_printable(part) for part in value]
    return printable(value) if isinstance(value, str) else value


def _text(file: Path) -> str:
    return printable(" ".join(file.read_text("utf-8", "replace").split()))


def _config(recorded: dict[str, Any]) -> dict[str, Any]:
    config = complete(recorded)
    for knob, kind in (("method", str), ("dataset", str), ("num_steps", int)):
        if knob not in recorded:
            raise ValueError(f"it has no {knob}")
        if not isinstance(config[knob], kind):
            raise ValueError(f"its {knob} is {config[knob]!r}")
    return config


def _rows(file: Path, tell: Callable[[str], None]) -> list[metrics.Row]:
    if not file.exists():
        raise FileNotFoundError(file)
    rows = metrics.read_rows(file, tell)
    return [{key: _finite(value) for key, value in row.items()} for row in rows]


def _finite(value: float | None) -> float | None:
    return value if value is None or abs(value) < math.inf else None


def _starts(recorded: dict[str, Any]) -> list[dict[str, Any]]:
    for start in recorded["starts"]:
        texts = start["devices"], start["machine"], *start["versions"].values()
        if not all(isinstance(text, str) for text in texts) or not isinstance(start["step"], int):
            raise ValueError("a start has another form")
    return recorded["starts"]


def _look_at(picture: Path) -> None:
    """Verifies the checksums of a PNG; raises Pillow's errors."""
    with Image.open(picture) as image:
        image.verify()


def _progress(run: Run) -> list[str]:
    of = f"at step {run.step:,} of {run.config.get('num_steps', 0):,}"
    if run.status == "failed":
        return [f"failed {of}: {run.failure}"]
    return [f"unfinished, {of}"] if run.status == "unfinished" else []


def _restarts(run: Run) -> list[str]:
    """Notes on restarts of a run with other versions or on another machine."""
    notes = []
    for before, after in zip(run.starts, run.starts[1:], strict=False):
        changes = [
            f"{name} {old} → {after['versions'].get(name)}"
            for name, old in before["versions"].items()
            if after["versions"].get(name) != old
        ]
        changes += [
            f"{before[part]} → {after[part]}"
            for part in ("devices", "machine")
            if before[part] != after[part]
        ]
        notes.append(f"resumed after step {after['step']:,} with {', '.join(changes)}")
    return notes


def read_all(paths: Sequence[Path]) -> list[Run]:
    """The runs at and below `paths`, with notes on versions that differ from most runs."""
    found = find(paths)
    root = Path(os.path.commonpath([path.absolute() for path in found]))
    root = root.parent if len(found) == 1 else root
    runs = [read(path, str(path.absolute().relative_to(root))) for path in found]
    usual = Counter(json.dumps(run.versions) for run in runs if run.versions).most_common(1)
    versions = json.loads(usual[0][0]) if usual else {}
    return [_note_versions(run, versions) for run in runs]


def _note_versions(run: Run, usual: dict[str, str]) -> Run:
    other = [f"{k} {v}" for k, v in run.versions.items() if usual.get(k) != v]
    if not other:
        return run
    note = f"other versions than most of these runs: {', '.join(other)}"
    return dataclasses.replace(run, notes=(*run.notes, note))
