"""Which run a directory holds, and which knobs may change when it goes on. Needs no JAX."""

from pathlib import Path
from typing import Any

from ssljax.errors import UsageError
from ssljax.overrides import complete, flatten
from ssljax.storage.files import as_json, read_json

# Knobs that do not change what is computed at any step of the planned run, or only its length.
RESUMABLE = frozenset(
    {
        "checkpoint.fallback",
        "compilation_cache",
        "cpu_devices",
        "data_dir",  # the hash of the split is compared
        "eval_batch_size",
        "eval_every",
        "health.stop_on",
        "keep_checkpoints",
        "log_every",
        "num_epochs",
        "num_seeds",  # a seed of several is an ordinary run
        "num_steps",
        "split_file",
        "stage.data_url",
        "stage.train_url",
        "steps_per_run",
    }
)


def require_same_run(workdir: Path, config: dict[str, Any], split_hash: str) -> None:
    """Compares a run directory with an experiment; knobs in `RESUMABLE` may differ.

    Args:
      split_hash: `splits.fingerprint` of the experiment's split.

    Raises:
      UsageError: they are of different runs; names the first difference.
    """
    before = flatten(complete(read_json(workdir / "config.json")))
    after = flatten(complete(as_json(config)))
    for key in sorted(before.keys() | after.keys()):
        if key not in RESUMABLE and before.get(key) != after.get(key):
            raise UsageError(
                f"{workdir} holds a run with config.{key}={before.get(key)!r}, not "
                f"{after.get(key)!r}; use another workdir, or the same value to resume"
            )
    found = read_json(workdir / "split.json").get("hash")
    if found != split_hash:
        raise UsageError(
            f"{workdir} holds a run on another split: its hash is {found}, not {split_hash}"
        )


def require_no_run(workdir: Path) -> None:
    """A directory that is to hold several runs is none itself: a report looks no further there.

    Raises:
      UsageError: it is.
    """
    if (workdir / "config.json").exists():
        raise UsageError(f"workdir {workdir} holds a run; several need another directory")
