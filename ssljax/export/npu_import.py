"""Imports the training of a bundle's runner as an ordinary run directory."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from ssljax import recipe, recorded
from ssljax.errors import UsageError
from ssljax.experiment import Experiment
from ssljax.export.npu_arrays import flat, nested
from ssljax.export.npu_bundle import FORMAT
from ssljax.log import quiet_import
from ssljax.run import directory as run_directory
from ssljax.run import metrics, results, resume
from ssljax.storage import checksums, output_directory, runs
from ssljax.storage.checkpoints import Checkpoints
from ssljax.storage.files import digest, plain_path, read_json, write_bytes, write_sealed
from ssljax.training.state import TrainState

PyTree = Any
# Optimizer state: field name in optax -> suffix of TensorFlow's variables.
_SLOTS = {"adam": {"mu": "Adam", "nu": "Adam_1"}, "momentum": {"trace": "Momentum"}}


def import_run(
    bundle: Path, workdir: Path, *, output: Path | None = None, given: Sequence[str] = ()
) -> int:
    """Writes the runner's newest checkpoint into a new run directory; returns its step.

    Weights, statistics, averages, the optimizer state and the rows of `metrics.jsonl` are the
    runner's. The directory is created atomically.

    Args:
      bundle: the directory with the manifest.
      workdir: must not exist, or must be empty.
      output: the runner's output directory; default: `<bundle>/run`.
      given: overrides `<knob>=<value>`: the data's location, and user code that the bundle names.

    Raises:
      UsageError: there is no checkpoint, it is damaged or belongs to another bundle, the data have
        changed, or workdir is not empty.
      RunError: workdir cannot be written.
    """
    manifest = read_json(bundle / "manifest.json")
    if manifest.get("format") != FORMAT:
        raise UsageError(f"--bundle {bundle} has format {manifest.get('format')}, not {FORMAT}")
    if workdir.exists() and not (workdir.is_dir() and not any(workdir.iterdir())):
        raise UsageError(f"workdir {workdir} is not empty")
    runs.require_no_part(workdir)
    output = bundle / "run" if output is None else output
    path, rows_then = _newest(output)
    log = output / "metrics.jsonl"
    if rows_then and not rows_then.begins(log.read_bytes() if log.exists() else b""):
        raise UsageError(f"{log} has changed since {path.name} was saved")
    experiment = recipe.build(
        recorded.config(
            manifest["config"],
            given,
            where=str(bundle / "manifest.json"),
            allowed=recorded.DATA,
            code=recorded.CODE,
        ),
        started=True,
    )
    resume.require_same_data(str(bundle), manifest, experiment.data_record)
    with plain_path(output) as plain:
        state = _state(experiment, manifest, _reader(plain / path.name, path), path)
    step = int(state.step)
    rows = [row for row in metrics.read_rows(log) if row["step"] <= step]
    empty = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), experiment.shapes["window"])
    metric_sums = _metric_sums(output / f"window-{step}.json", empty)
    finished = output / "results.json"
    is_complete = finished.exists() and read_json(finished).get("step") == step

    with output_directory.replaced(workdir) as partial:
        run_directory.open_directory(partial, experiment)
        if manifest.get("init_from"):
            write_sealed(partial / run_directory.INIT_FROM, manifest["init_from"])
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
        write_bytes(partial / "metrics.jsonl", content)
        with Checkpoints(partial, keep=experiment.keep_checkpoints) as checkpoints:
            written = checksums.Prefix(len(content), digest(content))
            checkpoints.save(step, {"state": state, "window": metric_sums}, written)
        if is_complete:
            write_sealed(partial / "results.json", results.results(rows))
    return step


def _newest(output: Path) -> tuple[Path, checksums.Prefix | None]:
    """Returns the newest checkpoint and its record of `metrics.jsonl`, if any."""
    manifests = [path.name for path in output.glob("manifest-*.json")] if output.is_dir() else []
    steps = [int(name[9:-5]) for name in manifests if name[9:-5].isdigit()]
    if steps:
        name = f"manifest-{max(steps)}.json"
        try:
            checksums.verify(output, name)
            recorded = checksums.Prefix(**read_json(output / name)["metrics.jsonl"])
        except (checksums.Damaged, KeyError, TypeError) as error:
            raise UsageError(f"the newest checkpoint in {output} is damaged: {error}") from error
        return output / f"checkpoint-{max(steps)}", recorded
    with quiet_import():
        import tensorflow as tf

    try:
        index = tf.train.get_checkpoint_state(str(output))
    except ValueError:  # another encoding
        index = None
    if index is None or not index.model_checkpoint_path:
        raise UsageError(f"{output} holds no checkpoint of the runner")
    # The recorded path is that on the machine that wrote it.
    return output / Path(index.model_checkpoint_path).name, None


def _reader(plain: Path, path: Path) -> Callable[[str], np.ndarray]:
    """Returns `read(name)`, which reads a variable of a TensorFlow checkpoint.

    Args:
      plain: a path that TensorFlow accepts for it.
    """
    with quiet_import():
        import tensorflow as tf

    def read(name: str) -> np.ndarray:
        try:
            if reader.has_tensor(name):
                return reader.get_tensor(name)
        except (tf.errors.OpError, RuntimeError, ValueError) as error:
            raise UsageError(f"{path} cannot be read: {_line(error)}") from error
        raise UsageError(f"{path} has no {name}: it belongs to another bundle")

    try:
        reader = tf.compat.v1.train.NewCheckpointReader(str(plain))
    except (tf.errors.OpError, RuntimeError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {_line(error)}") from error
    return read


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _state(
    experiment: Experiment, manifest: dict[str, Any], read: Callable[[str], np.ndarray], path: Path
) -> TrainState:
    start = experiment.init_state()

    def tree(template: PyTree, prefix: str, slot: str = "") -> PyTree:
        found = {}
        for name, leaf in flat(template, prefix).items():
            value = read(f"{name}{slot}")
            if value.shape != leaf.shape:
                raise UsageError(f"{path} has {name}{slot} of {value.shape}, not {leaf.shape}")
            found[name] = value
        return nested(template, prefix, found)

    slots = {
        field: tree(start.params, "param", f"/{suffix}")
        for field, suffix in _SLOTS[manifest["optimizer"]["name"]].items()
    }
    opt_state = optax.tree_utils.tree_set(start.opt_state, **slots)
    # Steps skipped by a loss scale count only for the schedule.
    counts = {"ScaleByScheduleState": "step"}
    if manifest["optimizer"]["name"] == "adam":
        counts["ScaleByAdamState"] = "applied_steps"
    for of, name in counts.items():
        count = np.int32(read(name))
        opt_state = optax.tree_utils.tree_set(
            opt_state, lambda path, _, of=of: path[-1].tuple_name == of, count=count
        )
    return start.replace(
        step=np.int32(read("step")),
        params=tree(start.params, "param"),
        batch_stats=tree(start.batch_stats, "stat"),
        ema=tree(start.ema, "ema"),
        ema_batch_stats=tree(start.ema_batch_stats, "ema_stat"),
        opt_state=opt_state,
    )


def _metric_sums(path: Path, empty: PyTree) -> PyTree:
    """Returns the sums of metrics that the runner had not logged yet."""
    sums = read_json(path) if path.exists() else {}
    return {
        name: average.replace(
            total=np.asarray(sums[name][0], average.total.dtype),
            count=np.asarray(sums[name][1], average.count.dtype),
        )
        if name in sums
        else average
        for name, average in empty.items()
    }
