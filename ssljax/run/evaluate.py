"""A state of training, or the newest one of a run directory -> exact accuracies."""

from pathlib import Path

import numpy as np

from ssljax.data.load import labeled_validation
from ssljax.data.splits import fingerprint
from ssljax.experiment import Experiment
from ssljax.run import directory, metrics, resume
from ssljax.run.results import Scores
from ssljax.training import hosts, parallel
from ssljax.training.parallel import Evaluate
from ssljax.training.state import TrainState


def evaluate_state(experiment: Experiment, evaluate: Evaluate, state: TrainState) -> Scores:
    """Accuracy (0..1) and cross-entropy (nats) on validation and test images.

    Args:
      evaluate: `experiment.evaluator()`.
      state: replicated.

    Returns:
      `{test,valid}/{accuracy,loss,class_entropy}_{raw,ema}`, the last one that of the predicted
      classes in nats, with more than 10 classes also `accuracy_top5`; a part without labelled
      images is left out.
    """
    weights = {kind: state.weights(kind) for kind in ("raw", "ema")}
    data, size = experiment.dataset, experiment.eval_batch_size
    parts = {
        "valid": (data.batches, labeled_validation(data, experiment.split)),
        "test": (data.test_batches, np.arange(len(data.test_labels))),
    }
    scores: Scores = {}
    for part, (batches, indices) in parts.items():
        mine = batches(parallel.local_part(indices), parallel.local_batch_size(size))
        means = evaluate(weights, parallel.in_step(mine, len(indices), size, data.image_shape))
        for kind, of_kind in means.items():
            for name, value in of_kind.items():
                if name == "classes":
                    name, value = "class_entropy", metrics.entropy(value)
                scores[f"{part}/{name}_{kind}"] = float(value)
    return scores


def evaluate_directory(experiment: Experiment, workdir: Path) -> tuple[int, Scores]:
    """Evaluates the newest checkpoint of a run directory: its step and scores.

    Raises:
      UsageError: there is no checkpoint, it cannot be read, or it is of another run.
    """
    shapes = experiment.shapes

    def read() -> TrainState:
        resume.require_same_run(workdir, experiment.config, fingerprint(experiment.split))
        return directory.newest_state(
            workdir, shapes, keep=experiment.keep_checkpoints, fallback=experiment.fallback
        )

    state = hosts.broadcast_tree(read, shapes["state"])
    assert state is not None
    replicated = parallel.replicate(state, experiment.devices)
    return int(state.step), evaluate_state(experiment, experiment.evaluator(), replicated)
