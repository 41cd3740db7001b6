"""`--mode=export`: exports the model of a run directory, verifies it and describes it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import flax.errors
import jax
import numpy as np

from ssljax import recorded, trained
from ssljax.errors import RunError, UsageError
from ssljax.export import artefact, parity, preprocess, readme
from ssljax.log import LOG
from ssljax.storage import checksums, output_directory, runs
from ssljax.storage.files import write_json, write_text
from ssljax.trained import Trained

# Config fields that an export accepts: those for the images of its report.
KNOBS = recorded.DATA | {"checkpoint.fallback"}


def export(
    workdir: Path,
    output: Path,
    *,
    format: str,
    weights: str = "ema",
    input_dtype: str = "uint8",
    batch_sizes: tuple[int, ...] = (),
    opset: int = 17,
    limit: int | None = None,
    overwrite: bool = False,
    given: Sequence[str] = (),
) -> None:
    """Exports the newest checkpoint, compares the result with the JAX model, and reports.

    Args:
      format: `saved_model`, `tf1` or `onnx`.
      weights: `ema` or `raw`.
      input_dtype: type of the images, 0..255: `uint8` or `float32`.
      batch_sizes: one TF1 graph is written for each; empty: one graph for any batch size.
      opset: the ONNX opset.
      limit: number of images in the parity report, evenly spread over the classes and the test
        images; None: all test images; 0: no report.
      overwrite: whether `output` may contain files, which are removed.
      given: overrides `<knob>=<value>` of `KNOBS`: other images for the report, or their location;
        and a user-defined model that the run names.

    Raises:
      UsageError: the model cannot be exported.
      RunError: the outputs of the exported model differ from those of the JAX model.
    """
    if batch_sizes and format != "tf1":
        raise UsageError(f"--batch_sizes is for --format=tf1; {format} takes any batch size")
    if limit is not None and limit < 0:
        raise UsageError(f"--limit is {limit}; allowed: from 0 up")
    output_directory.require_free(output, overwrite=overwrite)
    runs.require_one(workdir)
    config = recorded.of_run(workdir, given, allowed=KNOBS, code=("model",))
    if unread := [x for x in given if x.partition("=")[0] in recorded.DATA and limit == 0]:
        raise UsageError(f"--config.{unread[0]} is given with --limit=0, which reads no data")
    _require_installed(format, opset)
    model = trained.load(
        workdir, weights=weights, model=config.model, fallback=config.checkpoint.fallback
    )
    _require_exportable(model)
    images, is_own = (None, False) if limit == 0 else _test_images(workdir, given, limit)

    accuracy = _accuracy(workdir, model) if is_own and limit is None else None
    with output_directory.replaced(output, overwrite=overwrite) as partial:
        _write(model, partial, format, input_dtype, batch_sizes, opset)
        artefacts = artefact.open_all(partial)
        report = None
        if images is not None:
            report = parity.compare(
                model, artefacts, images, input_dtype=input_dtype, recorded=accuracy
            )
            write_json(partial / "parity.json", report)
        taken = preprocess.of(model, input_dtype)
        write_json(partial / preprocess.NAME, preprocess.record(taken))
        verdict = parity.describe(report) if report else "no parity report was asked for"
        write_text(partial / "labels.txt", "\n".join(model.class_names) + "\n")
        text = readme.readme(model, format, taken, sorted(artefacts), verdict)
        write_text(partial / "README.md", text)
        checksums.seal(partial)
        if report and not report["passed"]:
            failed = output_directory.put_aside(partial, output)
            print(verdict)
            raise RunError(
                f"the exported model differs from the JAX model; it is kept in {failed}, and "
                f"{output} is unchanged"
            )
    print(verdict)
    print(f"wrote {output}: {format} of step {model.step}, {model.weights} weights")


def _require_installed(format: str, opset: int) -> None:
    """Checks that the format's packages are installed, before anything is computed."""
    try:
        if format == "onnx":
            from ssljax.export import onnx_model

            onnx_model.require_opset(opset)
            onnx_model.require_usable()
        elif format == "tf1":
            from ssljax.export import tf1_model  # noqa: F401
        else:
            from ssljax.export import saved_model

            saved_model.require_usable()
    except ModuleNotFoundError as error:
        raise UsageError(artefact.missing(format, error, f"--format={format}")) from error


def _require_exportable(model: Trained) -> None:
    images = jax.ShapeDtypeStruct((2, *model.image_shape), np.uint8)
    try:
        jax.eval_shape(model.serve(), model.variables, images)
    except flax.errors.ModifyScopeVariableError as error:
        raise UsageError(
            "the model changes its statistics when it is evaluated; BatchNorm in training mode "
            f"cannot be exported ({' '.join(str(error).split())[:120]})"
        ) from error


def _write(
    model: Trained,
    folder: Path,
    format: str,
    input_dtype: str,
    batch_sizes: tuple[int, ...],
    opset: int,
) -> None:
    """Writes the model in one format."""
    if format == "onnx":
        from ssljax.export import onnx_model

        onnx_model.write(model, folder / "model.onnx", input_dtype=input_dtype, opset=opset)
    elif format == "tf1":
        from ssljax.export import tf1_model

        paths = {
            size: folder / (f"model_b{size}.pb" if size else "model.pb")
            for size in batch_sizes or (None,)
        }
        for size, path in paths.items():
            tf1_model.write(model, path, input_dtype=input_dtype, batch_size=size)
        readme.write_atc(folder / "atc.sh", model, paths)
    else:
        from ssljax.export import saved_model

        saved_model.write(model, folder, input_dtype=input_dtype)


def _test_images(
    workdir: Path, given: Sequence[str], limit: int | None
) -> tuple[Iterator[tuple[np.ndarray, np.ndarray]], bool]:
    """Returns batches of test images and labels, or of training images if there are no test images,
    and whether they belong to the run."""
    try:
        found = recorded.load_data(workdir, given, allowed=KNOBS)
    except UsageError as error:
        raise UsageError(f"{error}; --limit=0 exports without the data, and no report") from error
    data = found.dataset
    labels, batches = data.test_labels, data.test_batches
    if not len(labels):
        labels, batches = data.labels, data.batches
    chosen = np.arange(len(labels)) if limit is None else parity.spread(labels, limit)
    return batches(chosen, parity.BATCH), found.is_own


def _accuracy(workdir: Path, model: Trained) -> float | None:
    """Returns the test accuracy that the run recorded for the exported step."""
    from ssljax.run import metrics

    problems: list[str] = []
    rows = metrics.read_rows(workdir / "metrics.jsonl", problems.append)
    if problems:
        LOG.warning(f"warning: {problems[0]}; the report omits the run's recorded accuracy")
        return None
    found: list[Any] = [
        row.get(f"test/accuracy_{model.weights}") for row in rows if row["step"] == model.step
    ]
    return next((value for value in found if value is not None), None)
