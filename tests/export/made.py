"""Models and run directories for the tests of the export."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np

from ssljax.export.trained import Trained

MODELS = {
    "wide_resnet": ("wide_resnet", {"filters": 4, "repeat": 1}, 32),
    "cnn13": ("cnn13", {"filters": 4}, 32),
    "convnet": ("convnet", {"filters": 4}, 32),
    "shake_resnet": ("shake_resnet", {"filters": 4, "repeat": 1}, 32),
    "resnet18": ("resnet", {}, 64),
    "resnet50": ("resnet", {}, 64),
}


def model(name):
    """A network with weights and statistics as after some training, and seven images."""
    module, arguments, size = MODELS[name]
    network = getattr(importlib.import_module(f"ssljax.models.{module}"), name)(
        num_classes=10, **arguments
    )
    random = np.random.RandomState(0)
    variables = network.init(jax.random.key(0), jnp.zeros((1, size, size, 3)), train=False)

    def moved(path, x):
        x = np.asarray(x)
        name = path[-1].key
        if name == "var":
            return random.uniform(0.5, 2, x.shape).astype(np.float32)
        return (x + random.normal(0, 0.02, x.shape)).astype(np.float32)

    variables = jax.tree_util.tree_map_with_path(moved, dict(variables))
    images = random.randint(0, 256, (7, size, size, 3)).astype(np.uint8)
    shape = (size, size, 3)
    names = tuple("0123456789")
    return Trained(network, variables, shape, names, {"model": name}, 1, "ema"), images
