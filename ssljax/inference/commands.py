"""`--mode=predict`, `label_next`, `add_labels` and `label_errors`."""

from collections.abc import Sequence
from pathlib import Path

import ml_collections
import numpy as np

from ssljax import evaluation, parts, recorded, trained
from ssljax.data import sources, split_file
from ssljax.data.datasets import Dataset
from ssljax.data.sources import Source
from ssljax.data.splits import fingerprint
from ssljax.data.streaming import StreamedDataset
from ssljax.errors import UsageError
from ssljax.inference import add_labels, calibrate, foreign, label_errors, label_next
from ssljax.inference import predict as prediction
from ssljax.inference.calibration import Trusted
from ssljax.inference.foreign import Foreign
from ssljax.inference.predict import Summary
from ssljax.inference.table import Mark
from ssljax.log import printable
from ssljax.storage import output_directory
from ssljax.storage.files import write_json
from ssljax.trained import Trained

_POOL = "unlabeled"
_OWN = (_POOL, "test")  # the values of --images that refer to a run's data


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

    Unlabelled images of the run are marked if they look foreign, provided it has validation images.

    Args:
      images: a path, a pattern, `unlabeled` or `test`: see `sources.py`.
      max_error: predictions that can be trusted with this error, 0..1, are marked; None: none are.
      logit_adjustment: τ, see `Trained.adjusted`.
      given: overrides `<knob>=<value>` for the run's data.

    Returns:
      Lines that describe the results.

    Raises:
      UsageError: an argument is invalid, or `output` is not empty.
    """
    if max_error is not None and not 0 < max_error < 1:
        raise UsageError(f"--max_error={max_error}; allowed: above 0 and below 1")
    if max_error is not None and logit_adjustment:
        raise UsageError(
            f"--max_error={max_error} and --logit_adjustment={logit_adjustment} are given; "
            "allowed: one of them, as trusted confidences are determined without adjustment"
        )
    output_directory.require_free(output, overwrite=overwrite)
    config = _config(workdir, given)
    model = _load(workdir, config, weights).adjusted(logit_adjustment)
    trust = None if max_error is None else calibrate.trusted_confidence(model, max_error)
    data = None
    if images in _OWN:
        data = recorded.load_data(workdir, given, allowed=evaluation.KNOBS)
        source = sources.of_run(data.dataset, data.split, images)
    else:
        source = _from_path(images, model)
    strange = None
    if data is not None and images == _POOL:
        strange = foreign.of_run(model, data.dataset, data.split)
    marks = _marks(trust, strange)
    predicting = prediction.of_run(model, source, most=config.eval_batch_size)
    summary = prediction.write_directory(
        predicting,
        source,
        output,
        f"--images={images}",
        marks=marks,
        overwrite=overwrite,
    )
    lines = [prediction.describe(summary, model.class_names)]
    if model.logit_adjustment:
        lines.append(_describe_adjustment(model))
    if not model.calibration:
        lines.append(
            "confidences are not calibrated: the run has no calibration.json for these weights"
        )
    if trust is not None:
        lines.append(_describe_trust(summary, trust))
    if strange is not None:
        lines.append(_describe_foreign(summary))
    return "\n".join([*lines, f"wrote {output}/predictions.csv, .npz and .html"])


def _config(workdir: Path, given: Sequence[str]) -> ml_collections.ConfigDict:
    return recorded.of_run(workdir, given, allowed=evaluation.KNOBS, code=("model",))


def _load(workdir: Path, config: ml_collections.ConfigDict, weights: str = "ema") -> Trained:
    fallback = config.checkpoint.fallback
    return trained.load(workdir, weights=weights, model=config.model, fallback=fallback)


def _from_path(images: str, model: Trained) -> Source:
    allowed = f"{sources.ALLOWED}, {' or '.join(_OWN)}"
    return sources.from_path(images, model.image_shape, stream=model.is_streamed, allowed=allowed)


def _marks(trust: Trusted | None, strange: Foreign | None) -> dict[str, Mark]:
    """Returns the additional columns of the predictions."""
    marks: dict[str, Mark] = {}
    if trust is not None:
        marks["trusted"] = lambda numbers, _: numbers.confidence >= trust.confidence
    if strange is not None:
        marks["foreign"] = lambda _, found: strange.marks(np.asarray(found.features))
    return marks


def _describe_trust(summary: Summary, trust: Trusted) -> str:
    return (
        f"trusted: {summary.marked['trusted']} of {summary.images}, confidence "
        f"{trust.confidence:.3f} or more; their error is at most {trust.error_bound:.1%} with 95 % "
        f"probability, from {trust.images} validation images"
    )


def _describe_adjustment(model: Trained) -> str:
    text = (
        f"adjusted by τ = {model.logit_adjustment:g} for the shares of the classes among the "
        "labelled images"
    )
    if model.config.get("logit_adjustment"):
        text += (
            "; note: the training loss was adjusted, too (config.logit_adjustment="
            f"{model.config['logit_adjustment']}), so the adjustment is applied twice"
        )
    return text


def _describe_foreign(summary: Summary) -> str:
    marked, images = summary.marked["foreign"], int(summary.per_class.sum())
    share = Foreign.share(marked, images)
    return (
        f"foreign: {marked} of {images} are further from the labelled images than 95 % of the "
        f"validation images; about {share:.0%} of the pool look like none of the labelled images"
    )


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
    """Writes a selection of images to label next into the directory `output`.

    Args:
      workdirs: runs; `committee` uses all of them, other strategies the first one.
      config: a recipe, if there is no run yet.

    Returns:
      Lines that describe the output.
    """
    output_directory.require_free(output, overwrite=overwrite)
    if config is not None:
        data, split = parts.load_data(config)
        members, seed = [], config.seed
    else:
        found = recorded.load_data(workdirs[0], given, allowed=evaluation.KNOBS)
        data, split = found.dataset, found.split
        members = [_load(path, _config(path, given)) for path in workdirs]
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
    """Writes the split of a run or a recipe, with labels added, to the file `output`.

    Returns:
      A line that describes the output.
    """
    output_directory.require_free_file(output, overwrite=overwrite)
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
    record = split_file.record(
        more, {**before, **names}, parent=fingerprint(split), names=data.names()
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    write_json(output, record)
    counts = np.bincount(list(new.values()), minlength=len(data.class_names))
    each = ", ".join(f"{n} {name}" for n, name in zip(counts, data.class_names, strict=True) if n)
    return (
        f"{name}: {len(new)} new labels ({each or 'none'}), {len(more.labeled)} in all\n"
        f"wrote {output}: train on it with --config.split_file={output}"
    )


def list_label_errors(
    workdir: Path,
    output: Path,
    *,
    weights: str = "ema",
    overwrite: bool = False,
    given: Sequence[str] = (),
) -> str:
    """Writes the labels of a run that are probably wrong into the directory `output`.

    Returns:
      Lines that describe the results.
    """
    output_directory.require_free(output, overwrite=overwrite)
    data = recorded.load_data(workdir, given, allowed=evaluation.KNOBS)
    if not data.is_own:
        raise UsageError(f"{data.name} has other images than the run was trained with")
    model = _load(workdir, _config(workdir, given), weights)
    found = label_errors.find(model, data.dataset, data.split)
    with output_directory.replaced(output, overwrite=overwrite) as partial:
        label_errors.write(partial, found, data.dataset, weights=weights)
    return f"{_describe_errors(found, data.dataset)}\nwrote {output}/label_errors.csv and .html"


def _describe_errors(found: label_errors.Found, data: Dataset | StreamedDataset) -> str:
    """Describes the number of contradicted labels, and the first five of them."""
    names, contradicted = data.names(), np.flatnonzero(found.predicted != found.labels)
    crossed = int(found.out_of_fold.sum())
    how = "out of fold" if crossed == len(found.labels) else f"{crossed} out of fold"
    lines = [
        f"{len(found.labels)} images with a label ({int(found.valid.sum())} for validation), "
        f"predicted {how}: {len(contradicted)} labels are contradicted, {int(found.issues.sum())} "
        "are probably wrong"
    ]
    for i in contradicted[:5]:
        given, said = (data.class_names[c[i]] for c in (found.labels, found.predicted))
        name = printable(names[found.numbers[i]])
        lines.append(f"  {name}: {given}, predicted {said} ({found.probabilities[i].max():.3f})")
    if len(contradicted) > 5:
        lines.append(f"  … and {len(contradicted) - 5} more")
    if found.problems:
        lines.append(f"{len(found.problems)} images could not be read")
    return "\n".join(lines)
