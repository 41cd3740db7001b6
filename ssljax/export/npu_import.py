"""What a bundle's runner has trained -> an ordinary run directory."""

import json
import shutil
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
from ssljax.run import directory, resume
from ssljax.storage.checkpoints import Checkpoints
from ssljax.storage.files import read_json
from ssljax.training.state import TrainState

PyTree = Any
# Of the optimizer's state: the field in optax -> the suffix of TensorFlow's variables.
_SLOTS = {"adam": {"mu": "Adam", "nu": "Adam_1"}, "momentum": {"trace": "Momentum"}}


def import_run(
    bundle: Path, workdir: Path, *, output: Path | None = None, given: Sequence[str] = ()
) -> int:
    """Writes the runner's newest checkpoint into a new run directory; returns its step.

    Weights, statistics, averages and the optimizer's state are the runner's; so are
    `metrics.jsonl` and `results.json`.

    Args:
      bundle: has the manifest.
      workdir: must not exist, or be empty.
      output: the runner's, by default `<bundle>/run`.
      given: `<knob>=<value>`: where the data are now, and code of one's own that the bundle names.

    Raises:
      UsageError: there is no checkpoint, it is of another bundle, the data are no longer those of
        the bundle, or workdir is not empty.
    """
    with quiet_import():
        import tensorflow as tf

    manifest = read_json(bundle / "manifest.json")
    if manifest.get("format") != FORMAT:
        raise UsageError(f"--bundle {bundle} has format {manifest.get('format')}, not {FORMAT}")
    if workdir.exists() and any(workdir.iterdir()):
        raise UsageError(f"workdir {workdir} is not empty")
    output = bundle / "run" if output is None else output
    index = tf.train.get_checkpoint_state(str(output))
    if index is None:
        raise UsageError(f"{output} holds no checkpoint of the runner")
    # The path in the file is that of the machine that wrote it.
    path = output / Path(index.model_checkpoint_path).name
    reader = tf.train.load_checkpoint(str(path))
    experiment = recipe.build(
        recorded.config(
            manifest["config"],
            given,
            where=str(bundle / "manifest.json"),
            allowed=recorded.DATA,
            code=recorded.CODE,
        )
    )
    resume.require_same_data(str(bundle), manifest, experiment.data_record)

    def read(name: str) -> np.ndarray:
        if not reader.has_tensor(name):
            raise UsageError(f"{path} has no {name}: it is of another bundle")
        return reader.get_tensor(name)

    state = _state(experiment, manifest, read, path)
    directory.open_directory(workdir, experiment)
    for name in ("metrics.jsonl", "results.json"):
        if (output / name).exists():
            shutil.copy(output / name, workdir / name)
    empty = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), experiment.shapes["window"])
    metric_sums = _metric_sums(output / f"window-{int(state.step)}.json", empty)
    with Checkpoints(workdir, keep=experiment.keep_checkpoints) as checkpoints:
        checkpoints.save(int(state.step), {"state": state, "window": metric_sums})
    return int(state.step)


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
    # Steps that a loss scale skipped count for the schedule alone.
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
    """The sums of metrics that the runner had not logged yet."""
    sums = json.loads(path.read_text()) if path.exists() else {}
    return {
        name: average.replace(
            total=np.asarray(sums[name][0], average.total.dtype),
            count=np.asarray(sums[name][1], average.count.dtype),
        )
        if name in sums
        else average
        for name, average in empty.items()
    }
