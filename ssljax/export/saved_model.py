"""Exports to SavedModel through jax2tf: for TensorFlow Serving, CPU, CUDA, TPU, any batch size."""

from pathlib import Path

import jax
import numpy as np

from ssljax.errors import UsageError
from ssljax.export.artefact import Run
from ssljax.log import quiet_import
from ssljax.trained import OUTPUTS, Trained

with quiet_import():
    import tensorflow as tf
    from jax.experimental import jax2tf

_PLATFORMS = ("cpu", "cuda", "tpu")


def require_usable() -> None:
    """Rejects a TensorFlow that is too old for the programs written by this JAX.

    Raises:
      UsageError: it is too old.
    """
    convert = jax2tf.convert(
        lambda x: x + 1,
        polymorphic_shapes=["(b,)"],
        with_gradient=False,
        native_serialization_platforms=_PLATFORMS,
    )
    try:
        tf.function(convert, autograph=False)(tf.zeros(2))
    except tf.errors.InvalidArgumentError as error:
        raise UsageError(
            f"--format=saved_model: TensorFlow {tf.__version__} cannot run what jax "
            f"{jax.__version__} writes; allowed: an older jax, such as that of constraints.txt"
        ) from error


def write(trained: Trained, directory: Path, *, input_dtype: str) -> None:
    """Writes a SavedModel with the signature `serving_default`: images -> logits, probabilities."""
    tf.config.set_visible_devices([], "GPU")
    height, width, channels = trained.image_shape
    convert = jax2tf.convert(
        trained.serve(portable=True),
        polymorphic_shapes=[None, f"(b, {height}, {width}, {channels})"],
        with_gradient=False,
        native_serialization_platforms=_PLATFORMS,
    )
    module = tf.Module()
    # Flax's dicts become variables with readable names.
    module.variables_ = jax.tree_util.tree_map_with_path(
        lambda path, x: tf.Variable(x, name="/".join(k.key for k in path), trainable=False),
        trained.variables,
    )
    images = tf.TensorSpec([None, height, width, channels], input_dtype, name="images")
    serve = tf.function(
        lambda images: convert(module.variables_, images),
        input_signature=[images],
        autograph=False,
    )
    module.__call__ = serve
    tf.saved_model.save(module, str(directory), signatures=serve)


def runner(directory: Path) -> Run:
    """Returns a function that runs a SavedModel's serving signature."""
    loaded = tf.saved_model.load(str(directory))
    signature = loaded.signatures["serving_default"]
    assert set(signature.structured_outputs) == set(OUTPUTS)

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        return {name: x.numpy() for name, x in signature(images=tf.constant(images)).items()}

    run.__dict__["loaded"] = loaded  # the signature does not keep its variables alive
    return run
