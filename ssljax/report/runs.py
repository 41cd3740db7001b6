"""Reads run directories, whatever state they are in."""

import dataclasses
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ssljax.data import arrays
from ssljax.errors import UsageError
from ssljax.log import printable
from ssljax.overrides import complete
from ssljax.run import metrics
from ssljax.storage.files import PARTIAL, read_json

_MARKS = ("config.json", "metrics.jsonl", "results.json", "checkpoints")  # any: a run directory


class Predictions(NamedTuple):
    """`predictions.npz`, see `run/artifacts.py`."""

    step: int
    part: str  # test or validation
    labels: np.ndarray  # [T] int32
    predicted: np.ndarray  # [T] int32
    confidence: np.ndarray  # [T] float32
    mistakes: np.ndarray  # [K] int32, indices into the above, most confident first
    mistake_images: np.ndarray  # [K, H, W, C] uint8


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run directory holds. What is missing is empty, and `notes` says so."""

    path: Path
    name: str  # of the directory, as the report shows it
    config: dict[str, Any]  # {}: unreadable, and then the run is in no table
    rows: list[dict[str, Any]]  # of `metrics.jsonl`
    class_names: tuple[str, ...]
    sizes: dict[str, int]  # of the split's lists, by their names
    starts: list[dict[str, Any]]  # of `environment.json`
    predictions: Predictions | None
    failure: str  # "": it has not failed
    notes: tuple[str, ...]  # what a reader must know

    @property
    def step(self) -> int:
        """The last step that is known."""
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
        """Of the newest start."""
        return self.starts[-1]["versions"] if self.starts else {}


def find(paths: Sequence[Path]) -> list[Path]:
    """The run directories at and below `paths`, in order.

    Raises:
      UsageError: a path has none.
    """
    found = []
    for path in paths:
        below = [Path(here) for here, _ in _walk(path)]
        if not below:
            raise UsageError(f"--workdir={path} holds no run (no config.json below it)")
        found += sorted(below)
    return list(dict.fromkeys(found))


def _walk(path):
    for here, directories, files in os.walk(path):
        if set(_MARKS) & {*directories, *files}:
            directories.clear()
            yield here, files
        directories[:] = sorted(x for x in directories if not x.endswith(PARTIAL))


def read(path: Path, name: str) -> Run:
    """Reads what can be read."""
    notes: list[str] = []

    def optional(file: str, load: Callable[[Path], Any], default: Any) -> Any:
        if not (path / file).exists():
            notes.append(f"{file} is missing")
            return default
        try:
            return load(path / file)
        except Exception as error:  # anything can be in a file
            reason = " ".join(str(error).split()).replace(f"{path}/", "")[:200]
            notes.append(f"{file} cannot be read ({type(error).__name__}: {reason})")
            return default

    def tell(text: str) -> None:
        notes.append(text.replace(f"{path}/", ""))

    config = optional("config.json", lambda file: _config(file, tell), {})
    rows = optional("metrics.jsonl", lambda file: metrics.read_rows(file, tell), [])
    data = optional("data.json", lambda file: read_json(file, tell), {})
    split = optional("split.json", lambda file: read_json(file, tell), {})
    starts = optional("environment.json", lambda file: read_json(file, tell)["starts"], [])
    predictions = None
    if any("test/accuracy_ema" in row or "valid/accuracy_ema" in row for row in rows):
        predictions = optional("predictions.npz", _predictions, None)
    for picture in ("labelled.png", "augment.png"):
        if (path / picture).exists():
            optional(picture, _look_at, None)
    failure_file = path / "failure.txt"
    failure = failure_file.read_text().strip() if failure_file.exists() else ""
    run = Run(
        path=path,
        name=name,
        config=config,
        rows=rows,
        class_names=tuple(map(printable, data.get("class_names", ()))),
        sizes={key: len(value) for key, value in split.items() if isinstance(value, list)},
        starts=starts,
        predictions=predictions,
        failure=failure,
        notes=(),
    )
    return dataclasses.replace(run, notes=(*_progress(run), *notes, *_restarts(run)))


def _config(file: Path, tell: Callable[[str], None]) -> dict[str, Any]:
    config = complete(read_json(file, tell))
    for knob in ("method", "dataset", "num_steps"):
        if knob not in config:
            raise ValueError(f"it has no {knob}")
    return config


def _look_at(picture: Path) -> None:
    """Compares a PNG with the checksums in it; raises what Pillow does."""
    with Image.open(picture) as image:
        image.verify()


def _predictions(file: Path) -> Predictions:
    values: dict[str, Any] = dict(arrays.read(file, Predictions._fields))
    values |= {"step": int(values["step"]), "part": str(values["part"])}
    return Predictions(**values)


def _progress(run: Run) -> list[str]:
    of = f"at step {run.step:,} of {run.config.get('num_steps', 0):,}"
    if run.status == "failed":
        return [f"failed {of}: {run.failure}"]
    return [f"unfinished, {of}"] if run.status == "unfinished" else []


def _restarts(run: Run) -> list[str]:
    """A run that went on under other versions or on another machine."""
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
    """The runs at and below `paths`, each with what sets its versions apart from the others'."""
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
