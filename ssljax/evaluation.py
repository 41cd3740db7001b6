"""`--mode=eval`: the exact accuracies of the newest checkpoint in a run directory."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections

from ssljax import recipe, recorded, trained
from ssljax.data.datasets import Dataset
from ssljax.data.load import most_evaluated
from ssljax.data.splits import Split
from ssljax.data.streaming import StreamedDataset
from ssljax.network import available, make_model, training_dtype
from ssljax.run import evaluate
from ssljax.run.results import Scores
from ssljax.storage import runs
from ssljax.training import devices, parallel
from ssljax.training.state import TrainState
from ssljax.training.step import make_eval_step

# Knobs that an evaluation accepts: those of the data, and those that do not affect the results.
KNOBS = recorded.DATA | {
    "checkpoint.fallback", "compilation_cache", "cpu_devices", "eval_batch_size"
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The data and checkpoint of an evaluation, and its results."""

    dataset: Dataset | StreamedDataset
    split: Split
    eval_batch_size: int
    step: int
    is_own: bool  # whether the images are those the run was trained with
    name: str  # name of the data
    scores: Scores = dataclasses.field(default_factory=dict)


def prepare(workdir: Path, given: Sequence[str] = ()) -> None:
    """Sets up this process's devices before JAX starts its backend."""
    runs.require_one(workdir)
    recipe.prepare(_config(workdir, given), join=False)


def evaluate_directory(workdir: Path, given: Sequence[str] = ()) -> Evaluation:
    """Evaluates the newest checkpoint of a run directory.

    Args:
      given: overrides `<knob>=<value>` of `KNOBS`, and of any user code that the run names.

    Raises:
      UsageError: there is no checkpoint, it cannot be read, or the run's data have changed.
    """
    runs.require_one(workdir)
    config = _config(workdir, given)
    data = recorded.load_data(workdir, given, allowed=KNOBS)
    named = dict(override.partition("=")[::2] for override in given)
    found = trained.load(workdir, model=named.get("model", ""), fallback=config.checkpoint.fallback)
    split = data.split if data.is_own else data.split._replace(valid=data.split.valid[:0])
    size = min(config.eval_batch_size, most_evaluated(data.dataset, split))
    subject = Evaluation(data.dataset, split, size, found.step, data.is_own, data.name)
    scores = _scores(subject, config, found.state)
    return dataclasses.replace(subject, scores=scores)


def _config(workdir: Path, given: Sequence[str]) -> ml_collections.ConfigDict:
    return recorded.of_run(workdir, given, allowed=KNOBS, code=("model",))


def _scores(
    subject: Evaluation, config: ml_collections.ConfigDict, state: Mapping[str, Any]
) -> Scores:
    model = make_model(
        config,
        num_classes=subject.dataset.num_classes,
        dtype=training_dtype(config),
        axis_name=None,
    )
    run_devices = available()
    compiled = parallel.compile_evaluate(
        make_eval_step(model),
        run_devices,
        batch_size=subject.eval_batch_size,
    )
    weights = {"params": state["params"], "batch_stats": state["batch_stats"]}
    weights |= {"ema": state["ema"], "ema_batch_stats": state.get("ema_batch_stats") or ()}
    weights["frozen"] = state.get("frozen") or ()
    left_out = dict.fromkeys(("step", "opt_state", "method", "augment", "key"), ())
    replicated = parallel.replicate(TrainState(**weights, **left_out), run_devices)  # type: ignore[arg-type]
    with devices.telling_of_full_memory():
        return evaluate.evaluate_state(subject, compiled, replicated)[0]
