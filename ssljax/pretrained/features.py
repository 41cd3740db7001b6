"""Features of images from a frozen network, computed once and cached in memory and on the disk.

Their keys are hashes of the network and of each image's pixels, so that later runs compute only
new images. Deleting a folder of features is always safe.
"""

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from ssljax import forward
from ssljax.augment.ops import to_float
from ssljax.data import arrays
from ssljax.errors import UsageError
from ssljax.log import LOG
from ssljax.network import groups_of
from ssljax.pretrained.weight_files import checksum
from ssljax.storage.files import replacing

PyTree = Any
FOLDER = "~/.cache/ssljax/features"  # the default cache of features
_EACH = {"cpu": 16}  # platform -> images per device and batch: so few fit in a core's cache
_MANY = 128  # the same for other platforms
_KEPT = 2048  # images per file of features
# Fields of a model that do not change its features: they belong to the head, or to training.
_OF_TRAINING = {
    "num_classes", "axis_name", "remat", "frozen", "drop_path", "dropout", "batch_norm_momentum",
    "parent", "name",
}  # fmt: skip


class Features:
    """Computes features of images with a frozen network, and caches them.

    Args:
      model: a network whose second output is features `[N, D]`; it runs in evaluation mode.
      folder: the cache on the disk; None: there is none.
    """

    def __init__(
        self,
        model: nn.Module,
        params: PyTree,
        batch_stats: PyTree,
        *,
        devices: Sequence[jax.Device],
        folder: Path | None,
    ):
        self._devices = devices
        self._forward = forward.compile_forward(
            _features_of(model), {"params": params, "batch_stats": batch_stats}, devices
        )
        self._model = model
        name = _name(model, params, batch_stats)
        self._folder = folder / name if folder is not None else None
        self._known = dict(_kept(self._folder)) if self._folder is not None else {}

    def of(self, images: np.ndarray, title: str = "images") -> np.ndarray:
        """Features `[n, D]` float32 of images, uint8 `[n, H, W, C]`.

        Args:
          title: name of the images, for the progress bar.
        """
        if not len(images):
            return np.zeros((0, width(self._model, images.shape[1:])), np.float32)
        keys = [_digest(image) for image in images]
        missing = list({k: i for i, k in enumerate(keys) if k not in self._known}.values())
        bar = tqdm(
            total=len(missing), desc=f"features of {title}", unit=" images",
            disable=None if missing else True,
        )  # fmt: skip
        with bar:
            for start in range(0, len(missing), _KEPT):
                part = missing[start : start + _KEPT]
                found = self._compute(images, part, bar)
                fresh = {keys[i]: row for i, row in zip(part, found, strict=True)}
                self._keep(fresh)
                self._known |= fresh
        return np.stack([self._known[key] for key in keys])

    def _compute(
        self, images: np.ndarray, chosen: Sequence[int], bar: tqdm
    ) -> Iterator[np.ndarray]:
        size = _EACH.get(self._devices[0].platform, _MANY) * len(self._devices)
        batches = (images[chosen[i : i + size]] for i in range(0, len(chosen), size))
        found: Any
        for found in forward.in_batches(self._forward, batches, size):
            bar.update(len(found))
            yield from found

    def _keep(self, fresh: dict[bytes, np.ndarray]) -> None:
        if self._folder is None:
            return
        keys = np.frombuffer(b"".join(fresh), np.uint8).reshape(len(fresh), -1)
        path = self._folder / f"{hashlib.sha256(keys.tobytes()).hexdigest()[:16]}.npz"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as file:
                np.savez(file, keys=keys, features=np.stack([*fresh.values()]))
        except OSError as error:  # a full disk must not stop the run that needs the features
            LOG.info(f"note: features cannot be saved in {path} ({error})")


def width(model: nn.Module, image_shape: tuple[int, ...]) -> int:
    """The number of features per image; `image_shape` is (height, width, channels)."""
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    (_, features), _ = jax.eval_shape(
        lambda images: model.init_with_output(jax.random.key(0), images, train=False), images
    )
    return int(features.shape[-1])


def _features_of(model: nn.Module) -> Any:
    def features(variables: PyTree, images: jax.Array) -> jax.Array:
        found: Any = model.apply(variables, to_float(images), train=False)
        return found[1].astype(jnp.float32)

    return features


def _name(model: nn.Module, params: PyTree, batch_stats: PyTree) -> str:
    """A hash of everything that features depend on, except the images."""
    head = groups_of(model).head
    fields = {
        field.name: getattr(model, field.name)
        for field in dataclasses.fields(model)
        if field.name not in _OF_TRAINING
    }
    described = f"{type(model).__module__}.{type(model).__qualname__} {sorted(fields.items())}"
    weights = {name: x for name, x in params.items() if name not in (head, "heads")}
    digest = checksum({"params": weights, "batch_stats": batch_stats})
    return hashlib.sha256(f"{described} {digest}".encode()).hexdigest()[:16]


def _digest(image: np.ndarray) -> bytes:
    found = hashlib.blake2b(repr(image.shape).encode(), digest_size=16)
    found.update(np.ascontiguousarray(image).data)
    return found.digest()


def _kept(folder: Path) -> Iterator[tuple[bytes, np.ndarray]]:
    """The features in a folder, as pairs of an image's digest and its features."""
    for path in sorted(folder.glob("*.npz")):
        try:
            found = arrays.read(path, ["keys", "features"])
            keys, rows = found["keys"], found["features"]
            if len(keys) != len(rows) or keys.dtype != np.uint8 or rows.dtype != np.float32:
                raise UsageError("its arrays are not features")
        except UsageError as error:
            LOG.info(
                f"note: the features in {path} cannot be read ({error}); they are computed again"
            )
            continue
        yield from zip(map(bytes, keys), rows, strict=True)
