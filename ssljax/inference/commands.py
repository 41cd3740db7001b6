"""`--mode=predict`, `--mode=label_next` and `--mode=add_labels`."""

from collections.abc import Sequence
from pathlib import Path

import ml_collections
import numpy as np

from ssljax import evaluation, parts, paths, recorded, trained
from ssljax.data import sources, split_file
from ssljax.data.sources import Source
from ssljax.data.splits import fingerprint
from ssljax.errors import UsageError
from ssljax.inference import add_labels, calibrate, label_next
from ssljax.inference import predict as prediction
from ssljax.inference.predict import Options, Summary
from ssljax.storage import output_directory, runs
from ssljax.storage.files import write_json
from ssljax.trained import Trained

_OWN = ("unlabeled", "test")  # what --images can name of a run


def predict(
    workdir: Path,
    images: str,
    output: Path,
    *,
    weights: str = "ema",
    max_error: float | None = None,
    logit_adjustment: float = 0.0,
    overwrite: bool = False,
    given: Sequence[str] = (),
) -> str:
    """Writes the predictions of a run's model for images into the directory `output`.

    Args:
      images: a path, a pattern, `unlabeled` or `test`: see `sources.py`.
      max_error: marks the predictions that can be trusted with this error, 0..1; None: none.
      logit_adjustment: τ, see `Trained.adjusted`.
      given: `<knob>=<value>` of the run's data.

    Returns:
      Lines that say what was found.

    Raises:
      UsageError: any of it does not fit, or `output` is not empty.
    """
    output_directory.require_free(output, overwrite=overwrite)
    if max_error is not None and logit_adjustment:
        raise UsageError(
            f"--max_error={max_error} and --logit_adjustment={logit_adjustment} are given; "
            "allowed: one of them, as what can be trusted was worked out without adjustment"
        )
    model = trained.load(workdir, weights=weights, model=_named(given, "model"))
    model = model.adjusted(logit_adjustment)
    trust = None if max_error is None else calibrate.trusted_confidence(model, max_error)
    options = Options(model.temperature, None if trust is None else trust.confidence)
    source = _source(workdir, images, model, given)
    with output_directory.replaced(output, overwrite=overwrite) as partial:
        summary = prediction.write(model, source, partial, options)
        if not summary.per_class.sum():
            raise UsageError(
                f"--images={images}: none of {summary.images} images could be read, such as "
                f"{next(iter(summary.problems.items()))}"
            )
    lines = [_describe(summary, model)]
    if trust is not None:
        lines.append(
            f"trusted: {summary.trusted} of {summary.images}, confidence {trust.confidence:.3f} or "
            f"more; their error is at most {trust.error_bound:.1%} with 95 % probability, from "
            f"{trust.images} validation images"
        )
    return "\n".join([*lines, f"wrote {output}/predictions.csv, .npz and .html"])


def _named(given: Sequence[str], knob: str) -> str:
    return dict(override.partition("=")[::2] for override in given).get(knob, "")


def _source(workdir: Path, images: str, model: Trained, given: Sequence[str]) -> Source:
    if images not in _OWN:
        stream = bool(model.config.get("stream"))
        return sources.from_path(images, model.image_shape, stream=stream)
    data = recorded.load_data(workdir, given, allowed=evaluation.KNOBS)
    return sources.of_run(data.dataset, data.split, images)


def _describe(summary: Summary, model: Trained) -> str:
    counts = sorted(zip(summary.per_class.tolist(), model.class_names, strict=True), reverse=True)
    text = f"{summary.images} images: " + ", ".join(f"{n} {name}" for n, name in counts[:10])
    if len(counts) > 10:
        text += f", {sum(n for n, _ in counts[10:])} of {len(counts) - 10} other classes"
    if summary.problems:
        name, why = next(iter(summary.problems.items()))
        text += f"\n{len(summary.problems)} could not be read, such as {name}: {why}"
    if summary.known:
        text += (
            f"\n{summary.right / summary.known:.2%} of {summary.known} with a known label are right"
        )
    if model.logit_adjustment:
        text += (
            f"\nadjusted by τ = {model.logit_adjustment:g} for the shares of the classes among the "
            "labelled images"
        )
        if model.config.get("logit_adjustment"):
            text += (
                "; note: so was the training loss (config.logit_adjustment="
                f"{model.config['logit_adjustment']}), which makes it twice"
            )
    if model.temperature == 1:
        text += "\nconfidences are not calibrated: the run has no calibration.json of these weights"
    return text


def choose(
    workdirs: Sequence[Path],
    config: ml_collections.ConfigDict | None,
    output: Path,
    *,
    budget: int,
    strategy: str,
    overwrite: bool = False,
    given: Sequence[str] = (),
) -> str:
    """Writes which images to label next into the directory `output`.

    Args:
      workdirs: runs, of which `committee` takes all, and other strategies the first one.
      config: a recipe, where there is no run yet.

    Returns:
      Lines that say what was written.
    """
    output_directory.require_free(output, overwrite=overwrite)
    if config is not None:
        data, split = parts.load_data(config)
        members, seed = [], config.seed
    else:
        found = recorded.load_data(workdirs[0], given, allowed=evaluation.KNOBS)
        data, split = found.dataset, found.split
        members = [trained.load(path, model=_named(given, "model")) for path in workdirs]
        seed = int(members[0].config["seed"])
    if len({member.class_names for member in members}) > 1:
        raise UsageError(
            "--workdir names runs of different classes; allowed: runs of the same data"
        )
    choices = label_next.choose(members, data, split, budget=budget, strategy=strategy, seed=seed)
    with output_directory.replaced(output, overwrite=overwrite) as partial:
        label_next.write(partial, choices)
    first = "\n".join(f"  {choice.file}: {choice.why}" for choice in choices[:5])
    more = f"\n  … and {len(choices) - 5} more" if len(choices) > 5 else ""
    return (
        f"{len(choices)} images to label next:\n{first}{more}\n"
        f"wrote {output}/label_next.csv (fill in its column label) and label_studio.json"
    )


def extend_split(
    workdir: Path | None,
    config: ml_collections.ConfigDict | None,
    labels: Path,
    output: Path,
    *,
    overwrite: bool = False,
    given: Sequence[str] = (),
) -> str:
    """Writes the split of a run or a recipe with more labels to the file `output`.

    Returns:
      A line that says what was written.
    """
    if output.is_dir() or (output.exists() and not overwrite):
        raise UsageError(f"--output {output} exists; --overwrite replaces a file")
    runs.require_none(output, "--output")
    paths.require_writable(output.parent, "--output")
    given_labels = add_labels.read(labels)
    if config is not None:
        data, split = parts.load_data(config)
        name = config.dataset
    else:
        assert workdir is not None
        found = recorded.load_data(workdir, given, allowed=evaluation.KNOBS)
        data, split, name = found.dataset, found.split, found.name
    more, new = add_labels.add(data, split, given_labels)
    names = {number: data.class_names[c] for number, c in new.items()}
    before = data.added_labels
    record = split_file.record(more, {**before, **names}, parent=fingerprint(split))
    output.parent.mkdir(parents=True, exist_ok=True)
    write_json(output, record)
    counts = np.bincount(list(new.values()), minlength=len(data.class_names))
    each = ", ".join(f"{n} {name}" for n, name in zip(counts, data.class_names, strict=True) if n)
    return (
        f"{name}: {len(new)} new labels ({each or 'none'}), {len(more.labeled)} in all\n"
        f"wrote {output}: train on it with --config.split_file={output}"
    )
