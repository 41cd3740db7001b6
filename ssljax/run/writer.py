"""Reads and writes the run directory, in the first process, while the loop runs."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from ssljax.errors import RunError
from ssljax.experiment import Experiment
from ssljax.log import LOG
from ssljax.run import artifacts, directory, health, metrics, results, resume
from ssljax.run.evaluate import Predictions
from ssljax.storage import lock
from ssljax.storage.checkpoints import Checkpoints, newest_step
from ssljax.storage.files import write_picture, write_sealed
from ssljax.storage.remote import Mirror
from ssljax.training import hosts, parallel
from ssljax.training.state import TrainState


class RunWriter:
    """A run's lock, checkpoints, metrics, pictures, predictions and results."""

    def __init__(self, experiment: Experiment, workdir: Path, home: str = ""):
        self._experiment = experiment
        self._workdir = workdir
        self._home = Mirror(home, workdir, "--workdir") if home else None

    def open(self, stack: ExitStack, *, last: int | None = None) -> dict[str, Any] | None:
        """Locks the directory until `stack` ends; returns the newest checkpoint, if there is one.

        Args:
          last: the step to resume from; later checkpoints are removed. None: the newest.

        Raises:
          UsageError: as for `loop.train`.
        """
        experiment, workdir = self._experiment, self._workdir
        if self._home is not None:
            self._home.pull()
        directory.make_directory(workdir)
        stack.enter_context(lock.held(workdir))
        mirrors = [self._home] if self._home is not None else []
        if experiment.train_url:
            mirrors.insert(0, Mirror(experiment.train_url, workdir, "config.stage.train_url"))
        for mirror in mirrors:  # they must not hold another run
            if recorded := mirror.read("config.json"):
                resume.require_same_recipe(mirror.name, recorded, experiment.config, may_move=True)
        for mirror in mirrors:
            stack.push(mirror.push)
        going_on_from = newest_step(workdir) if last is None else last
        resume.require_not_past(workdir, going_on_from, experiment.num_steps)
        directory.open_directory(workdir, experiment)
        stack.enter_context(artifacts.noting_failure(workdir))
        self._checkpoints = stack.enter_context(
            Checkpoints(workdir, keep=experiment.keep_checkpoints)
        )
        if last is not None:
            self._checkpoints.remove_after(last)
        newest = self._checkpoints.restore_newest(
            experiment.shapes, growing="window", fallback=experiment.fallback
        )
        step, saved = newest or (0, None)
        if saved is not None:
            self._checkpoints.set_aside(step)
            LOG.info(f"resuming {workdir} after step {step}")
            if any(np.any(average.count) for average in saved["window"].values()):
                step -= 1  # saved before the row of its step was written, which is repeated
        self._log = stack.enter_context(
            metrics.MetricsLog(workdir, step=step, fallback=experiment.fallback)
        )
        artifacts.begin(experiment, workdir, self._log, step=step)
        return saved

    def write(
        self,
        row: metrics.Row,
        evaluation: tuple[TrainState, Predictions | None] | None,
        report: Callable[[str], None],
    ) -> None:
        """Appends a row; at evaluations, also updates the report's files and checks for problems.

        Args:
          evaluation: the state, replicated, and its predictions; None: not an evaluation step.
          report: receives warnings.

        Raises:
          RunError: there is a problem of a kind in `config.health.stop_on`.
        """
        self._log.write(row)
        if evaluation is None:
            return
        state, predictions = evaluation
        if self._experiment.augmentation.picture is not None:
            picture = self._experiment.augmentation.picture(parallel.fetch(state.augment))
            write_picture(self._workdir / "augment.png", Image.fromarray(picture))
        if predictions is not None:
            artifacts.write_predictions(
                self._experiment, predictions, self._workdir, step=row["step"]
            )
        found = health.problems(
            self._log.rows,
            finite=_is_finite(parallel.fetch(state)),
            label_entropy=0.0 if predictions is None else _label_entropy(predictions),
        )
        for kind, text in found.items():
            if kind in self._experiment.stop_on:
                raise RunError(
                    f"{text}. The checkpoint before it is intact (config.health.stop_on)"
                )
            report(f"warning: {text}")

    def save(self, step: int, tree: dict[str, Any]) -> None:
        """Starts saving host arrays, `{"state": …, "window": …}`.

        Raises:
          RunError: they are not finite, or the previous save failed.
        """
        if "non_finite" in self._experiment.stop_on and not _is_finite(tree["state"]):
            raise RunError(
                f"a weight is not finite at step {step}, which was not saved; the checkpoint "
                "before it is intact"
            )
        self._checkpoints.save(step, tree, self._log.written())
        if self._home is not None:
            self._home.push_in_background()

    def check(self) -> None:
        """Raises the error of the last background save, if it has failed."""
        if hosts.is_first():
            self._checkpoints.check()

    def wait(self) -> None:
        """Waits for the background save and raises its error, if any."""
        self._checkpoints.wait()

    def prune(self) -> None:
        """Removes old checkpoints. With several runs, call it after each has saved its newest one,
        so that a kill at any time leaves a step that all runs have."""
        self._checkpoints.prune()

    def finish(self) -> dict[str, Any]:
        """Writes the curve and the results after the last checkpoint; returns the results."""
        self.prune()
        artifacts.write_curve(self._workdir, self._log.rows)
        found = results.results(self._log.rows)
        write_sealed(self._workdir / "results.json", found)
        return found


def _label_entropy(predictions: Predictions) -> float:
    """Returns the entropy of the evaluated images' labels, in nats."""
    return metrics.entropy(np.bincount(predictions.labels) / len(predictions.labels))


def _is_finite(state: TrainState) -> bool:
    weights = jax.tree.leaves((state.params, state.batch_stats, state.ema))
    return all(np.isfinite(x).all() for x in weights)
