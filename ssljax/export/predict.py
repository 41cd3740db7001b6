"""`python -m ssljax.export.predict DIR IMAGES`: predictions of an exported model.

It needs only the export, and writes the same files as `--mode=predict`, without the features.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np

from ssljax import exits, interrupts, log, paths
from ssljax.data import sources
from ssljax.errors import UsageError
from ssljax.export import artefact, preprocess
from ssljax.export.artefact import Artefact
from ssljax.export.preprocess import Preprocess
from ssljax.forward import Outputs
from ssljax.inference import predict as prediction
from ssljax.inference.predict import Model
from ssljax.storage import checksums, flock, output_directory

_BATCH = 64  # batch size of a model that takes any batch size


def predict(directory: Path, images: str, output: Path, *, overwrite: bool = False) -> str:
    """Writes the predictions of an exported model for images into the directory `output`.

    Args:
      directory: output of `--mode=export` with a SavedModel, an ONNX file or TensorFlow 1 graphs;
        of several graphs, the one with the largest batch size is used.
      images: a folder, a file, a pattern or an `.npz` file: see `sources.py`.

    Returns:
      Lines that describe the results.

    Raises:
      UsageError: an argument is invalid, or `output` is not empty.
    """
    output_directory.require_free(output, overwrite=overwrite)
    artefact.format_of(directory)
    known = preprocess.read(directory)
    checksums.require_unchanged(directory)
    labels = directory / "labels.txt"
    classes = labels.read_text("utf-8", "replace").removesuffix("\n").split("\n")
    source = sources.from_path(images, known.image_shape, stream=known.is_streamed, field="IMAGES")
    model = _model(artefact.open_all(directory).values(), known, classes)
    summary = prediction.write_directory(model, source, output, images, overwrite=overwrite)
    described = prediction.describe(summary, classes)
    return f"{described}\nwrote {output}/predictions.csv, .npz and .html"


def _model(found: Iterable[Artefact], known: Preprocess, classes: Sequence[str]) -> Model:
    chosen = max(found, key=lambda artefact: artefact.batch_size or np.inf)

    def run(batches: Iterator[np.ndarray]) -> Iterator[Outputs]:
        for images in batches:
            outputs = chosen.outputs(images.astype(known.dtype), _BATCH)
            if outputs.logits.shape[-1] != len(classes):
                raise UsageError(
                    f"labels.txt has {len(classes)} lines; allowed: {outputs.logits.shape[-1]}, "
                    "one per class"
                )
            yield outputs

    return Model(run, classes, chosen.batch_size or _BATCH)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; --help says more")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m ssljax.export.predict",
        description="Predicts the classes of images with an exported model.",
        allow_abbrev=False,
    )
    parser.add_argument("directory", metavar="DIR", help="what --mode=export has written")
    parser.add_argument(
        "images", metavar="IMAGES", help="a folder, a file, a pattern with * or an .npz"
    )
    parser.add_argument(
        "--output", default="predictions", help="a directory (default: predictions)"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replaces an output that has files"
    )
    return parser


def main(arguments: Sequence[str]) -> int:
    """Runs the command and returns its exit code; `arguments` excludes the program's name."""
    log.show_lines()

    def command() -> None:
        given = _parser().parse_args(arguments)
        flock.require()
        directory, output = (
            Path(paths.expand(path, field))
            for path, field in ((given.directory, "DIR"), (given.output, "--output"))
        )
        with interrupts.handled(interrupts.end):
            print(predict(directory, given.images, output, overwrite=given.overwrite))

    return exits.code_of(command)


if __name__ == "__main__":
    log.outlive_readers()
    sys.exit(main(sys.argv[1:]))
