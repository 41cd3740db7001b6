"""Detects silent failures of semi-supervised training, and suggests their likely causes."""

from collections.abc import Sequence

from ssljax.run.metrics import Row

# Fraction of the labels' entropy; a model that assigns 99 of 100 images to one class is below it.
_COLLAPSED = 0.05


def problems(rows: Sequence[Row], *, finite: bool, label_entropy: float) -> dict[str, str]:
    """Returns the problems found at an evaluation, by kind, see `experiment.HEALTH_KINDS`.

    Args:
      rows: rows of `metrics.jsonl`, the last one that of the evaluation.
      finite: whether all weights are finite.
      label_entropy: entropy of the evaluated images' labels, in nats; 0: unknown.
    """
    row = rows[-1]
    found = {}
    if not finite or row["loss/total"] is None:
        found["non_finite"] = (
            f"the loss or a weight is not finite at step {row['step']}. Likely cause: a learning "
            "rate that is too high (config.optimizer.lr); metrics.jsonl shows how it began"
        )
    rates = [r["guess/mask_rate"] for r in _since_last(rows) if "guess/mask_rate" in r]
    if rates and set(rates) == {0.0}:
        found["mask_rate"] = (
            f"no guess has counted since the previous evaluation, up to step {row['step']}: "
            "unlabelled images have no effect. Likely cause: a threshold "
            "(config.method_args.threshold) that the model's confidence does not reach yet"
        )
    if rates and set(rates) == {1.0}:
        found["mask_rate"] = (
            f"every guess has counted since the previous evaluation, up to step {row['step']}, "
            "even wrong ones. Likely cause: a threshold (config.method_args.threshold) that is too "
            "low, or predictions that have collapsed"
        )
    entropies = {
        name: row[name]
        for name in ("test/class_entropy_raw", "valid/class_entropy_raw", "guess/class_entropy")
        if row.get(name) is not None
    }
    name, entropy = next(iter(entropies.items()), ("", label_entropy))
    if entropy < _COLLAPSED * label_entropy:
        found["collapse"] = (
            f"nearly all images are assigned to one class at step {row['step']} ({name} is "
            f"{entropy:.4f} nats). Likely cause: too few labels of the other classes, or a weight "
            "of the unlabelled loss or a learning rate that is too high"
        )
    return found


def _since_last(rows: Sequence[Row]) -> list[Row]:
    """Returns the rows since the previous evaluation, including the last one."""
    since = [rows[-1]]
    for row in reversed(rows[:-1]):
        if any(name.startswith(("test/", "valid/")) for name in row):
            break
        since.append(row)
    return since
