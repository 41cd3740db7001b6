"""An experiment that trains the last layer alone, on features that are computed once.

The features of an image are the same at every step if all views are the images themselves. They
take the place of images, `[N, 1, 1, D]`: MixMatch then mixes features, and VAT disturbs them.
Checkpoints are those of any experiment with `config.trainable="head"`.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from ssljax import paths
from ssljax.augment import policies
from ssljax.augment.augmentation import Augmentation
from ssljax.data.batches import TrainingData
from ssljax.data.datasets import Dataset
from ssljax.experiment import Experiment
from ssljax.methods.method import Method
from ssljax.network import groups_of
from ssljax.pretrained.features import FOLDER, Features, width
from ssljax.training import parallel
from ssljax.training.state import TrainState, Weights
from ssljax.training.step import make_eval_step

PyTree = Any


class LastLayer(nn.Module):
    """features `[N, 1, 1, D]` -> logits `[N, num_classes]`, features `[N, D]`; float32."""

    num_classes: int
    head: str  # what the layer is called in the network
    dtype: DTypeLike

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array]:
        del train
        features = images.reshape(len(images), -1)
        logits = nn.Dense(self.num_classes, dtype=self.dtype, name=self.head)(features)
        return logits.astype(jnp.float32), features


@dataclasses.dataclass(frozen=True)
class OnFeatures(Experiment):
    """As `Experiment`; `begin` is given the frozen weights before anything is computed."""

    feature_cache: Path | None = None  # where features are kept between runs; None: nowhere
    holds = "features"

    def begin(self, state: TrainState) -> None:
        if "_features" not in self.__dict__:
            params = {**state.frozen, **state.params}
            self.__dict__["_features"] = self._features_by(params, state.batch_stats)

    def _features_by(self, params: PyTree, batch_stats: PyTree) -> Features:
        return Features(
            self.model, params, batch_stats, devices=jax.local_devices(), folder=self.feature_cache
        )

    @functools.cached_property
    def _of_training(self) -> np.ndarray:
        if "_features" not in self.__dict__:
            self.begin(self.init_state())
        assert isinstance(self.dataset, Dataset)
        return self._as_images(self.dataset.images, "training images")

    def _as_images(self, images: np.ndarray, title: str = "images") -> np.ndarray:
        found: np.ndarray = self.__dict__["_features"].of(images, title)
        return found[:, None, None]

    def probabilities(self, model: Any, images: np.ndarray) -> np.ndarray:
        params, batch_stats = model.variables["params"], model.variables.get("batch_stats", {})
        features = self._features_by(params, batch_stats).of(images)
        head = {self._last_layer.head: params[self._last_layer.head]}
        logits, _ = self._last_layer.apply({"params": head}, features[:, None, None], train=False)
        return np.asarray(jax.nn.softmax(logits / model.temperature))

    def data(self) -> TrainingData:
        return super().data()._replace(images=self._of_training)

    def data_like(self) -> TrainingData:
        numbers = width(self.model, self.dataset.image_shape)
        like = np.broadcast_to(np.float32(0), (len(self.dataset.labels), 1, 1, numbers))
        return super().data()._replace(images=like)

    def _make_step(self, model: nn.Module, **options: Any) -> Callable[..., Any]:
        del model
        return super()._make_step(self._last_layer, **options)

    @property
    def _last_layer(self) -> LastLayer:
        head = groups_of(self.model).head
        return LastLayer(self.dataset.num_classes, head, getattr(self.model, "dtype", jnp.float32))

    @functools.cached_property
    def _evaluator(self) -> parallel.Evaluator:
        evaluate = parallel.compile_evaluate(
            make_eval_step(self._last_layer), self.devices, batch_size=self.eval_batch_size
        )

        def on_features(
            weights: Mapping[str, Weights], images: np.ndarray, labels: np.ndarray
        ) -> dict[str, parallel.Evaluated]:
            return evaluate(weights, self._as_images(images), labels)

        return dataclasses.replace(evaluate, run=on_features)


def kind(
    trainable: str, feature_cache: str, dataset: Any, method: Method, augmentation: Augmentation
) -> Callable[..., Experiment]:
    """`OnFeatures`, where features need to be computed only once: the last layer alone is trained,
    and every view that the method has is the image itself. Else `Experiment`.

    Args:
      trainable, feature_cache: the knobs of these names.
    """
    views = {**policies.PLAIN, **augmentation.views(augmentation.init())}
    named = (method.labeled_view, *method.views, *method.more_labeled_views)
    once = (
        trainable == "head"
        and isinstance(dataset, Dataset)
        and all(views[name] is policies.none for name in named)
    )
    if not once:
        return Experiment
    folder = paths.expand(feature_cache or FOLDER, "config.feature_cache")
    return functools.partial(OnFeatures, feature_cache=Path(folder))
