"""Running of exported models, whatever their format."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssljax.errors import UsageError
from ssljax.forward import Outputs
from ssljax.trained import OUTPUTS

# Maps images [n, H, W, C] to `OUTPUTS` by name, [n, classes] float32.
Run = Callable[[np.ndarray], Mapping[str, np.ndarray]]
_GRAPH = re.compile(r"model(?:_b(\d+))?\.pb")  # a TensorFlow 1 graph, for one or any batch size
_EXTRAS = {"onnx": "onnx", "saved_model": "tensorflow", "tf1": "tensorflow"}


class Artefact(NamedTuple):
    """An exported model."""

    run: Run
    batch_size: int | None = None  # n; None: any

    def outputs(self, images: np.ndarray, size: int) -> Outputs:
        """Runs any number of images, in batches of `size`, or of the model's fixed batch size."""
        size, least = (self.batch_size,) * 2 if self.batch_size else (size, 1)
        parts = []
        for start in range(0, max(len(images), 1), size):
            part = images[start : start + size]
            missing = max(least - len(part), 0)
            full = np.pad(part, [(0, missing), *[(0, 0)] * (images.ndim - 1)])
            found = self.run(full)
            parts.append([found[name][: len(part)] for name in OUTPUTS])
        logits, probabilities = (np.concatenate(of_all) for of_all in zip(*parts, strict=True))
        return Outputs(logits, probabilities, None)


def format_of(directory: Path) -> str:
    """Returns the `--format` that a directory was exported with.

    Raises:
      UsageError: the directory holds no exported model.
    """
    for name, format in (("model.onnx", "onnx"), ("saved_model.pb", "saved_model")):
        if (directory / name).is_file():
            return format
    if _graphs(directory):
        return "tf1"
    raise UsageError(
        f"{directory} holds no exported model; allowed: what --mode=export writes with "
        f"--format={', '.join(_EXTRAS)}"
    )


def open_all(directory: Path) -> dict[str, Artefact]:
    """Opens the models in a directory, by file name.

    Raises:
      UsageError: there are none, or the package that runs them is not installed.
    """
    format = format_of(directory)
    try:
        if format == "onnx":
            from ssljax.export import onnx_model

            return {"model.onnx": Artefact(onnx_model.runner(directory / "model.onnx"))}
        if format == "tf1":
            from ssljax.export import tf1_model

            graphs = _graphs(directory).items()
            return {path.name: Artefact(tf1_model.runner(path), size) for path, size in graphs}
        from ssljax.export import saved_model

        return {"saved_model.pb": Artefact(saved_model.runner(directory))}
    except ModuleNotFoundError as error:
        raise UsageError(missing(format, error, f"the model in {directory}")) from error


def missing(format: str, error: ModuleNotFoundError, what: str) -> str:
    """Returns the message for a missing package that a format needs."""
    extra = _EXTRAS[format]
    return f"{what} needs the extra {extra}: pip install -e '.[{extra}]' ({error})"


def _graphs(directory: Path) -> dict[Path, int | None]:
    """Returns the TensorFlow 1 graphs in a directory, with their batch sizes."""
    found: dict[Path, int | None] = {}
    for path in sorted(directory.glob("*.pb")):
        if match := _GRAPH.fullmatch(path.name):
            found[path] = int(match[1]) if match[1] else None
    return found
