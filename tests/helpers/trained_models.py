"""Models and run directories for tests of exports."""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np

from helpers.tiny import tiny_config
from ssljax import recipe
from ssljax.run import loop
from ssljax.trained import Trained

MODELS = {
    "wide_resnet": ("wide_resnet", {"filters": 4, "repeat": 1}, 32),
    "cnn13": ("cnn13", {"filters": 4}, 32),
    "convnet": ("convnet", {"filters": 4}, 32),
    "shake_resnet": ("shake_resnet", {"filters": 4, "repeat": 1}, 32),
    "resnet18": ("resnet", {}, 64),
    "resnet50": ("resnet", {}, 64),
    "vit_tiny": ("vit", {"patch": 8, "depth": 2, "variant": "dinov2_reg"}, 32),
    "vit_clip": ("vit", {"patch": 8, "depth": 2, "variant": "clip"}, 32),
    "vit_mae": ("vit", {"patch": 8, "depth": 2, "variant": "mae"}, 32),
    "vit_augreg": ("vit", {"patch": 8, "depth": 2}, 32),
    "efficientnet_lite0": ("efficientnet_lite", {}, 64),
    "efficientnet_lite4": ("efficientnet_lite", {}, 64),
}


@functools.cache
def model(name):
    """Returns a network with weights and statistics as after some training, and seven images."""
    module, arguments, size = MODELS[name]
    function = "vit_tiny" if module == "vit" else name
    network = getattr(importlib.import_module(f"ssljax.models.{module}"), function)(
        num_classes=10, **arguments
    )
    random = np.random.RandomState(0)
    init = jax.jit(functools.partial(network.init, train=False))
    variables = init(jax.random.key(0), jnp.zeros((1, size, size, 3)))

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


def logits_of(trained, images):
    """Returns the model's logits for the images, compiled: `[N, classes]`."""
    return np.asarray(jax.jit(trained.serve())(trained.variables, images)["logits"])


def write_data(path, size=16, test=1000):
    """Writes an .npz data set of ten classes, each a pattern with noise."""
    random = np.random.RandomState(0)
    patterns = random.uniform(0, 255, (10, 4, 4, 3))

    def draw(n):
        labels = np.arange(n) % 10
        clean = np.kron(patterns[labels], np.ones((1, size // 4, size // 4, 1)))
        return np.clip(clean + random.normal(0, 60, clean.shape), 0, 255).astype(np.uint8), labels

    (images, labels), (test_images, test_labels) = draw(200), draw(test)
    np.savez(
        path,
        train_images=images,
        train_labels=labels,
        test_images=test_images,
        test_labels=test_labels,
    )


def train(directory, network="wide_resnet", size=16, steps=6, **arguments):
    """Trains a short run on such data; returns its directory and the data's file."""
    data = directory / "data.npz"
    write_data(data, size)
    config = tiny_config("supervised")
    config.dataset = f"npz:{data}.1@100-0"
    config.augment.weak = "none"
    config.model = network
    with config.unlocked():
        config.model_args = arguments or {"filters": 4, "repeat": 1, "batch_norm_momentum": 0.5}
    config.num_steps = config.eval_every = steps
    config.ema_decay = 0.5
    loop.train(recipe.build(config), directory / "run")
    return directory / "run", data
