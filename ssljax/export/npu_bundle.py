"""Writes an experiment as a bundle for training with TensorFlow 1.15 on Ascend NPUs, without JAX.

train.pb       loss, metrics and new BatchNorm statistics of weights, a batch and random numbers
eval.pb        logits of images
views.pb       strong views of images and random numbers, for methods that use them
weights.npz    initial weights, statistics and their averages
data.npz       images, labels and the split
manifest.json  names, shapes and all other information for the runner
SHA256SUMS     checksums of all files, which the runner verifies first
run.py         the runner, `npu_run.py`

The graphs draw no random numbers: the runner draws them, as specified in the manifest.
"""

import importlib.metadata
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssljax.augment import policies, randaugment
from ssljax.augment.ops import to_float
from ssljax.errors import UsageError
from ssljax.experiment import Experiment
from ssljax.export import npu_arrays, npu_limits, tf1_graph
from ssljax.export.npu_arrays import flat, nested
from ssljax.methods.method import Batch, Progress
from ssljax.storage import checksums
from ssljax.storage.files import write_json
from ssljax.training import optim
from ssljax.training.monitors import class_monitors, monitors
from ssljax.training.passes import Network
from ssljax.training.replica import SINGLE
from ssljax.training.state import TrainState

PyTree = Any
FORMAT = 1  # version of the bundle; the runner accepts no other
_RUNNER = Path(__file__).with_name("npu_run.py")


def write(experiment: Experiment, directory: Path, *, state: TrainState | None = None) -> None:
    """Writes a bundle into an empty directory.

    Args:
      state: the state that training starts from; None: the experiment's initial state.

    Raises:
      UsageError: a part of the experiment is not supported by the runner; the message names it.
    """
    npu_limits.require_trainable(experiment)
    state = experiment.init_state() if state is None else state
    inputs = _inputs(experiment, state)
    noise, strong = _noise(experiment), _strong(experiment)
    inputs |= noise["shapes"]
    train = tf1_graph.lower(_train_function(experiment, state, noise["names"]), inputs)
    used = _used(train)
    tf1_graph.save(train, directory / "train.pb")
    evaluated = _evaluation(experiment, state)
    tf1_graph.save(tf1_graph.lower(*evaluated), directory / "eval.pb")
    if strong:
        tf1_graph.save(tf1_graph.lower(strong["function"], strong["args"]), directory / "views.pb")
    for name, arrays in (
        ("weights", npu_arrays.weights(state)),
        ("data", npu_arrays.data(experiment)),
    ):
        np.savez(directory / f"{name}.npz", **arrays)  # type: ignore[arg-type]
    manifest = _manifest(experiment, state)
    manifest |= {
        "inputs": {
            name: {"shape": list(x.shape), "dtype": str(np.dtype(x.dtype))}
            for name, x in inputs.items()
            if name in used
        },
        "metrics": sorted(
            node.name.removeprefix("out/metric/").removesuffix("/total")
            for node in train.node
            if node.name.startswith("out/metric/") and node.name.endswith("/total")
        ),
        "noise": noise["distributions"],
        "strong": strong and strong["manifest"],
    }
    write_json(directory / "manifest.json", manifest)
    shutil.copy(_RUNNER, directory / "run.py")
    checksums.seal(directory)


def _inputs(experiment: Experiment, state: TrainState) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the placeholders of the training graph, except the method's noise."""
    n, m = experiment.batch_size, experiment.batch_size * experiment.uratio
    shape = experiment.dataset.image_shape
    like = jax.ShapeDtypeStruct
    inputs = {
        "in/labeled": like((n, *shape), jnp.uint8),
        "in/labels": like((n,), jnp.int32),
        "in/step": like((), jnp.int32),
    }
    if experiment.method.views:
        inputs["in/hidden"] = like((m,), jnp.int32)
    inputs |= {
        f"in/view{i}": like((m, *shape), jnp.uint8) for i in range(len(experiment.method.views))
    }
    trees = {"param": state.params, "ema": state.ema, "stat": state.batch_stats}
    for prefix, tree in trees.items():
        inputs |= {name: like(x.shape, x.dtype) for name, x in flat(tree, prefix).items()}
    return inputs


def _noise(experiment: Experiment) -> dict[str, Any]:
    """Returns names, shapes and distributions of the random numbers in the method's loss."""
    n, m = experiment.batch_size, experiment.batch_size * experiment.uratio
    shape = experiment.dataset.image_shape
    like = jax.ShapeDtypeStruct
    views = tuple(like((m, *shape), jnp.float32) for _ in experiment.method.views)
    drawn = jax.eval_shape(
        lambda *arrays: experiment.method.noise(jax.random.PRNGKey(0), Batch(*arrays)),
        like((n, *shape), jnp.float32),
        like((n,), jnp.int32),
        views,
    )
    leaves = jax.tree.leaves(drawn)
    if not leaves:
        return {"shapes": {}, "names": drawn, "distributions": {}}
    args = experiment.config["method_args"]
    if experiment.config["method"] != "mixmatch" or args.get("mixmode", "xxy.yxy") != "xxy.yxy":
        raise UsageError(
            f"the noise of config.method {experiment.config['method']!r}"
            f"{' with mixmode ' + repr(args['mixmode']) if 'mixmode' in args else ''} is not known "
            "to the runner of --format=npu_bundle; allowed: mixmatch as published, or no noise"
        )
    size = leaves[0].shape[0]
    return {
        "shapes": {f"in/noise/{name}": like(x.shape, x.dtype) for name, x in drawn.items()},
        "names": {name: f"in/noise/{name}" for name in drawn},
        "distributions": {
            "in/noise/lam": {"kind": "larger_beta", "beta": args.get("beta", 0.75), "size": size},
            "in/noise/permutation": {"kind": "permutation", "size": size},
        },
    }


def _train_function(experiment: Experiment, state: TrainState, noise: PyTree) -> Callable[..., Any]:
    """Returns a function of named arrays that computes the loss and other outputs of a step."""
    method, model = experiment.method, experiment.model.clone(axis_name=None)

    def function(args: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        params = nested(state.params, "param", args)
        ema = nested(state.ema, "ema", args)
        batch_stats = nested(state.batch_stats, "stat", args)
        views = tuple(to_float(args[f"in/view{i}"]) for i in range(len(method.views)))
        labeled, labels = to_float(args["in/labeled"]), args["in/labels"]
        batch = Batch(labeled, labels, views, adjustment=experiment.adjustment)
        step = args["in/step"].astype(jnp.float32)
        images, fraction = step * experiment.batch_size, step / experiment.num_steps
        progress = Progress(images, fraction, args["in/step"])

        apply = Network(
            model,
            batch_stats=batch_stats,
            averaged=batch_stats,
            key=None,
            replica=SINGLE,
            whole=False,
        )
        drawn = jax.tree.map(lambda name: args[name], noise)
        value, aux = method.loss(params, ema, apply, batch, drawn, (), progress)
        outputs = {"out/loss": value} | flat(aux.batch_stats, "out/stat")
        logs = aux.logs | {"loss/total": value}
        for name, x in logs.items():
            outputs[f"out/metric/{name}/total"] = x
            outputs[f"out/metric/{name}/count"] = jnp.ones(())
        hidden = args.get("in/hidden")
        watched = monitors(aux, hidden) | class_monitors(aux, hidden)
        for name, average in watched.items():
            outputs[f"out/metric/{name}/total"] = average.total
            outputs[f"out/metric/{name}/count"] = average.count
        return outputs

    return function


def _evaluation(
    experiment: Experiment, state: TrainState
) -> tuple[Callable[..., Any], dict[str, Any]]:
    like = jax.ShapeDtypeStruct
    args = {
        "in/images": like((experiment.eval_batch_size, *experiment.dataset.image_shape), jnp.uint8),
        **{n: like(x.shape, x.dtype) for n, x in flat(state.params, "param").items()},
        **{n: like(x.shape, x.dtype) for n, x in flat(state.batch_stats, "stat").items()},
    }

    def function(args: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        variables = {
            "params": nested(state.params, "param", args),
            "batch_stats": nested(state.batch_stats, "stat", args),
        }
        logits, _ = experiment.model.apply(variables, to_float(args["in/images"]), train=False)
        return {"out/logits": logits}

    return function, args


def _views(experiment: Experiment) -> list[str]:
    """Returns the augmentation of labelled images, then of each unlabelled view."""
    same = {"strong": "weak"} if experiment.config["augment"]["strong"] == "none" else {}
    return [same.get(v, v) for v in (experiment.method.labeled_view, *experiment.method.views)]


def _strong(experiment: Experiment) -> dict[str, Any] | None:
    """Returns the strong view as a function of images and uniform numbers; None: there is none."""
    if "strong" not in _views(experiment):
        return None
    knobs = experiment.config["augment"]
    if knobs["strong"] == "strong_digits":
        numbers, weak_first = 9, False
        view = policies.strong_digits_from_uniform
    elif knobs["strong"] == "randaugment":
        arguments = {
            name: knobs.get(f"randaugment_{knob}")
            for name, knob in (
                ("layers", "num_layers"),
                ("probability", "prob_to_apply"),
                ("magnitude", "magnitude"),
                ("num_levels", "num_levels"),
            )
        }
        chosen = randaugment.adapted(randaugment.SEARCH_SPACES[knobs["recipe"]], **arguments)
        numbers, weak_first = randaugment.uniform_numbers(chosen), True

        def view(uniform, images):
            return randaugment.apply(images, randaugment.from_uniform(uniform, chosen), chosen)

    else:
        raise UsageError(
            f"config.augment.strong {knobs['strong']!r} is not known to the runner of "
            "--format=npu_bundle, which has no policy that learns; allowed: none, randaugment, "
            "strong_digits"
        )
    n, like = experiment.batch_size * experiment.uratio, jax.ShapeDtypeStruct
    if experiment.method.labeled_view == "strong":
        n = experiment.batch_size
    return {
        "function": lambda args: {"out/images": view(args["in/uniform"], args["in/images"])},
        "args": {
            "in/images": like((n, *experiment.dataset.image_shape), jnp.uint8),
            "in/uniform": like((n, numbers), jnp.float32),
        },
        "manifest": {"numbers": numbers, "weak_first": weak_first},
    }


def _used(graph: Any) -> set[str]:
    """Removes unused placeholders, and returns the names of the others."""
    read = {name.split(":")[0].lstrip("^") for node in graph.node for name in node.input}
    for node in [n for n in graph.node if n.op == "Placeholder" and n.name not in read]:
        graph.node.remove(node)
    return {node.name for node in graph.node if node.op == "Placeholder"}


def _manifest(experiment: Experiment, state: TrainState) -> dict[str, Any]:
    config, knobs = experiment.config, experiment.config["optimizer"]
    kernels = flat(optim.kernels(state.params), "param")
    keras = flat(optim.regularized_by_keras(state.params), "param")
    scale = config["batch_size"] / knobs["lr_batch_size"] if knobs["lr_batch_size"] else 1
    in_loss = {"adam": {}, "sgd": kernels, "keras_sgd": keras}[knobs["name"]]
    return {
        "format": FORMAT,
        "config": config,
        "init_from": experiment.start and experiment.start.record,
        **experiment.data_record,
        "labeled_view": _views(experiment)[0],
        "views": _views(experiment)[1:],
        "weak": npu_limits.WEAK[config["augment"]["weak"]],
        "optimizer": {
            "name": "adam" if knobs["name"] == "adam" else "momentum",
            "momentum": knobs["momentum"],
            # Gradient term: factor × weight.
            "l2": {
                name: knobs["weight_decay"] * (2 if knobs["name"] == "keras_sgd" else 1)
                for name, yes in in_loss.items()
                if yes
            },
            # Applied after the update: factor 1 - decay · learning rate.
            "decay": {
                name: knobs["weight_decay"]
                for name, yes in kernels.items()
                if yes and knobs["name"] == "adam"
            },
        },
        "schedule": {
            "name": knobs["schedule"],
            "lr": knobs["lr"] * scale,
            "steps": experiment.num_steps,
            "steps_per_epoch": len(experiment.split.labeled) / experiment.batch_size,
            "warmup_epochs": knobs["warmup_epochs"],
            "decay_epochs": list(knobs["decay_epochs"]),
        },
        "first_step": int(state.step),
        "versions": {name: importlib.metadata.version(name) for name in ("ssljax", "jax", "flax")},
    }
