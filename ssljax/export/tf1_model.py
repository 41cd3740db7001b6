"""Writes a trained model as a frozen TensorFlow 1 graph, with its weights as constants."""

from pathlib import Path

import jax
import jax.numpy as jnp

from ssljax.export import tf1_graph
from ssljax.export.artefact import Run
from ssljax.log import quiet_import
from ssljax.trained import OUTPUTS, Trained

with quiet_import():
    import tensorflow as tf


def write(trained: Trained, path: Path, *, input_dtype: str, batch_size: int | None) -> None:
    """Writes a graph with the placeholder `images` and the nodes `logits` and `probabilities`.

    Args:
      batch_size: number of images in a batch; None: any.
    """
    serve = trained.serve()
    n = batch_size or jax.export.symbolic_shape("b")[0]
    images = jax.ShapeDtypeStruct((n, *trained.image_shape), jnp.dtype(input_dtype))
    graph = tf1_graph.lower(
        lambda args: serve(trained.variables, args["images"]), {"images": images}
    )
    tf1_graph.save(graph, path)


def runner(path: Path) -> Run:
    """Returns a function that runs a graph on this machine, in a session of TensorFlow 1."""
    tf.config.set_visible_devices([], "GPU")
    graph_def = tf.compat.v1.GraphDef.FromString(path.read_bytes())
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graph_def, name="")
    session = tf.compat.v1.Session(graph=graph)
    outputs = {name: f"{name}:0" for name in OUTPUTS}
    return lambda images: session.run(outputs, {"images:0": images})
