"""Loads the trained model of a run directory, ready for prediction and export.

Loading reads no data set, and needs neither the method nor the optimizer used in training.
"""

import dataclasses
import functools
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ssljax import forward, losses, paths, recorded
from ssljax.augment.ops import to_float
from ssljax.checks import check_range, prefix_errors
from ssljax.errors import UsageError
from ssljax.forward import Outputs
from ssljax.models import convolution
from ssljax.network import available, make_model, network_weights
from ssljax.storage import runs
from ssljax.storage.checkpoints import Checkpoints
from ssljax.storage.files import read_json

if TYPE_CHECKING:
    from ssljax.data.sources import Images

PyTree = Any
OUTPUTS = ("logits", "probabilities")
CALIBRATION = "calibration.json"  # in a run directory: see `inference/calibrate.py`
_MOST = 512  # images per batch, if the run does not say


@dataclasses.dataclass(frozen=True)
class Trained:
    """A model with its weights."""

    model: nn.Module  # computes in float32
    variables: PyTree  # "params" and "batch_stats", NumPy arrays
    image_shape: tuple[int, int, int]  # (height, width, channels)
    class_names: tuple[str, ...]
    config: dict[str, Any]  # `config.json` of the run
    step: int
    weights: str  # "ema" or "raw"
    results: dict[str, Any] = dataclasses.field(default_factory=dict)  # `results.json`, if any
    # `calibration.json`, if it belongs to these weights
    calibration: dict[str, Any] = dataclasses.field(default_factory=dict)
    class_counts: tuple[int, ...] = ()  # labelled images per class; (): not recorded
    logit_adjustment: float = 0.0  # τ, see `adjusted`
    state: PyTree = None  # the full training state, nested dicts of NumPy arrays
    classes: tuple[Hashable, ...] = ()  # the labels `predict` returns; (): the class names
    workdir: Path | None = None  # the run directory

    def serve(
        self, *, portable: bool = False
    ) -> Callable[[PyTree, jax.Array], dict[str, jax.Array]]:
        """Returns `f(variables, images) -> outputs`, the function that every format computes.

        Images are `[N, H, W, C]`, uint8 or float32, 0..255; `logits` and `probabilities` are
        `[N, classes]` float32. Probabilities are the softmax of the logits divided by the
        temperature. Both are adjusted only for a model of `adjusted`, which is never exported.

        Args:
          portable: whether the function is for export, see `convolution.portable`.
        """

        def f(variables: PyTree, images: jax.Array) -> dict[str, jax.Array]:
            with convolution.portable() if portable else nullcontext():
                found = self._compute(variables, images)._asdict()
            return {name: found[name] for name in OUTPUTS}

        return f

    def _compute(self, variables: PyTree, images: jax.Array) -> Any:
        """Computes `Outputs`, as JAX arrays, for images as in `serve`."""
        found: Any = self.model.apply(variables, to_float(images), train=False)
        logits, features = found
        if self.adjustment is not None:
            logits = logits - self.adjustment[None]
        # Without a temperature the graph is left unchanged.
        scaled = logits if self.temperature == 1 else logits / self.temperature
        outputs: Any = logits, jax.nn.softmax(scaled), features.astype(jnp.float32)
        return Outputs(*outputs)

    @property
    def temperature(self) -> float:
        """The divisor of the logits that calibrates the probabilities; 1 if none was determined."""
        return float(self.calibration.get("temperature", 1.0))

    @property
    def is_streamed(self) -> bool:
        """Whether the run streamed its images (as for ImageNet), which are cropped differently."""
        is_imagenet = str(self.config.get("dataset", "")).startswith("imagenet")
        return bool(self.config.get("stream")) or is_imagenet

    @property
    def adjustment(self) -> np.ndarray | None:
        """The vector subtracted from the logits, `[classes]` float32; None: nothing."""
        if not self.logit_adjustment:
            return None
        return losses.logit_adjustment(self.class_counts, self.logit_adjustment)

    def adjusted(self, logit_adjustment: float) -> "Trained":
        """Returns the model with adjusted logits, whose predictions do not favour frequent classes.

        τ times the logarithm of each class's share of the labelled images is subtracted from the
        logits. This is for a model trained without `config.logit_adjustment` (Menon et al., 2021,
        https://arxiv.org/abs/2007.07314, equation 9). The temperature was determined without it.

        Args:
          logit_adjustment: τ, at least 0.

        Raises:
          UsageError: τ is negative or infinite, a class has no labelled images, or the run did not
            record the number of labelled images per class.
        """
        given = f"logit_adjustment is {logit_adjustment}"
        with prefix_errors(""):
            check_range("logit_adjustment", logit_adjustment)
        if logit_adjustment and not self.class_counts:
            raise UsageError(
                f"{given}, but {self.workdir}/split.json, which an older version wrote, does not "
                "say how many labelled images each class has; the run's training command writes it"
            )
        found = dataclasses.replace(self, logit_adjustment=logit_adjustment)
        with prefix_errors(given):
            found.adjustment  # noqa: B018
        return found

    @functools.cached_property
    def _forward(self) -> forward.Forward:
        return forward.compile_forward(self._compute, self.variables, jax.local_devices())

    def outputs(
        self, batches: Iterable[np.ndarray], size: int, devices: Sequence[Any] | None = None
    ) -> Iterator[Outputs]:
        """Yields logits, probabilities and features per batch; the next batch is read meanwhile.

        Logits and probabilities are adjusted only for a model of `adjusted`.

        Args:
          batches: uint8 `[n, H, W, C]`, n at most `size`.
          size: as returned by `batch_size`.
          devices: None: all local devices.
        """
        run = self._forward
        if devices is not None:
            run = forward.compile_forward(self._compute, self.variables, devices)
        return forward.in_batches(run, batches, size)

    def batch_size(
        self, images: int, devices: Sequence[Any] | None = None, most: int | None = None
    ) -> int:
        """Returns the batch size of `outputs` for a number of images.

        Args:
          most: the largest batch size; None: `eval_batch_size` of the run.
        """
        most = most or self.config.get("eval_batch_size", _MOST)
        return forward.batch_size(images, len(devices or jax.local_devices()), most)

    def predict_proba(self, images: "Images") -> np.ndarray:
        """Returns class probabilities, `[N, classes]` float32, in the order of `class_names`.

        Probabilities are calibrated if the run has determined a temperature. Images are read and
        processed in batches, so that memory use does not depend on the number of files.

        Args:
          images: uint8 `[N, H, W, C]` of the size that the model was trained on, for one channel
            also `[N, H, W]`; the path of an image, of a folder at any depth, of an `.npz` file, or
            a pattern with `*`; or a list of paths of images, folders and patterns. Files are
            prepared as in training: rotated upright, cropped to the largest central square and
            resized. Images of a folder or a pattern are sorted by name.

        Raises:
          UsageError: there are no images; an array has another type or size; or a file, which the
            message names, cannot be read (`--mode=predict` skips such files instead).
        """
        from ssljax.data import sources

        source = sources.of(images, self.image_shape, stream=self.is_streamed)
        size = self.batch_size(len(source.names))

        def pixels() -> Iterator[np.ndarray]:
            for loaded in source.batches(size):
                if loaded.problems:
                    raise UsageError(next(iter(loaded.problems.values())))
                yield loaded.images

        found = [outputs.probabilities for outputs in self.outputs(pixels(), size)]
        return np.concatenate([np.zeros((0, len(self.class_names)), np.float32), *found])

    def predict(self, images: "Images") -> np.ndarray:
        """Returns the likeliest class of each image, `[N]`: the label given to `fit`, or its name.

        Args:
          images: as for `predict_proba`.

        Raises:
          UsageError: as for `predict_proba`.
        """
        classes = self.classes or self.class_names
        named = np.empty(len(classes), object)
        named[:] = classes
        if len({type(name) for name in classes}) == 1 and np.isscalar(classes[0]):
            named = np.array(classes)
        return named[np.argmax(self.predict_proba(images), axis=-1)]


def load(
    workdir: Path | str, *, weights: str = "ema", model: str = "", fallback: bool = False
) -> Trained:
    """Loads the newest checkpoint of a run directory.

    Args:
      weights: `ema`, the moving average, or `raw`.
      model: `config.model` of the run if that is user code, `<module>.<name>`. A run directory may
        come from someone else and cannot by itself run code from outside ssljax.
      fallback: whether to fall back to the previous checkpoint if the newest one is damaged.

    Raises:
      UsageError: there is no run or no checkpoint, it cannot be read, or JAX finds no device.
    """
    available()
    workdir = _opened(workdir)
    runs.require_one(workdir)
    config = read_json(workdir / "config.json", model=str)
    data = runs.data_record(workdir)
    known = recorded.of_run(workdir, [f"model={model}"] if model else [], code=("model",))
    with Checkpoints(workdir, keep=0) as checkpoints:
        newest = checkpoints.restore_newest(fallback=fallback)
    if newest is None:
        raise UsageError(f"{workdir} holds no checkpoint yet")
    network = make_model(
        known,
        num_classes=len(data["class_names"]),
        dtype=jnp.float32,
        axis_name=None,
    )
    step, state = newest[0], newest[1]["state"]
    with _fitting(workdir, step):
        params, batch_stats = network_weights(state, weights)
        variables = {"params": params} | ({"batch_stats": batch_stats} if batch_stats else {})
        _require_fits(network, variables, tuple(data["image_shape"]))
    results, calibrated = workdir / "results.json", workdir / CALIBRATION
    calibration = read_json(calibrated) if calibrated.exists() else {}
    if (calibration.get("step"), calibration.get("weights")) != (step, weights):
        calibration = {}  # it belongs to other weights
    return Trained(
        model=network,
        variables=variables,
        image_shape=tuple(data["image_shape"]),
        class_names=tuple(data["class_names"]),
        config=config,
        step=step,
        weights=weights,
        results=read_json(results) if results.exists() else {},
        calibration=calibration,
        class_counts=_class_counts(workdir, len(data["class_names"])),
        state=state,
        workdir=workdir,
    )


def _class_counts(workdir: Path, classes: int) -> tuple[int, ...]:
    """Returns the number of labelled images per class; (): not recorded."""
    path = workdir / "split.json"
    counts = read_json(path).get("class_counts", []) if path.exists() else []
    if not isinstance(counts, list) or not all(
        isinstance(count, int) and count >= 0 for count in counts
    ):
        raise UsageError(f"{path}: class_counts is {counts}; allowed: a list of whole numbers")
    return tuple(counts) if len(counts) == classes else ()


def _require_fits(network: nn.Module, variables: PyTree, image_shape: tuple[int, ...]) -> None:
    """Raises ValueError unless the variables have the network's shapes."""
    images = jnp.zeros((1, *image_shape))
    made = jax.eval_shape(lambda: network.init(jax.random.key(0), images, train=False))
    expected, found = (jax.tree.map(lambda x: x.shape, tree) for tree in (dict(made), variables))
    if expected != found:
        raise ValueError("its weights have other shapes")


@contextmanager
def _fitting(workdir: Path, step: int) -> Iterator[None]:
    try:
        yield
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise UsageError(
            f"the checkpoint of step {step} in {workdir} does not fit its config.json: "
            f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        ) from error


def _opened(workdir: Path | str) -> Path:
    if "://" not in str(workdir):
        return Path(paths.expand(str(workdir), "workdir"))
    from ssljax.storage import remote  # imports libraries that read URLs

    return remote.opened(workdir)
