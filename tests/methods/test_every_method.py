"""What holds for each method of the package, on the recipe for digits that it has."""

import importlib

import jax
import numpy as np
import pytest
from jax.interpreters import partial_eval

import ssljax.methods
from helpers import golden_steps
from helpers.processes import final_state
from helpers.steps import largest_difference, run_steps, weights
from helpers.tiny import build, tiny_config
from ssljax import recipe
from ssljax.errors import UsageError
from ssljax.export import npu_bundle
from ssljax.lookup import modules_of
from ssljax.run import loop, seeds
from ssljax.storage.checkpoints import Checkpoints
from ssljax.training import parallel

NAMES = [x.__name__.rpartition(".")[2] for x in modules_of(ssljax.methods, without=["method"])]
# Those whose state or loss is of several images at once; tests/training/test_step.py has others.
# Their arguments are such that guesses count, and each part of a state changes, in the first steps.
STATEFUL = {
    "abc": dict(threshold=0.1),
    "adamatch": {},
    "comatch": dict(threshold=0.1, contrast_threshold=0.1, smoothing_from=1),
    "crest": dict(threshold=0.1),
    "dash": dict(start_epoch=1, epoch_images=8, drop_epochs=1),
    "debiaspl": dict(threshold=0.1, views=2, cld_weight=0.3, teacher="ema"),
    "flexmatch": dict(threshold=0.12),
    "freematch": {},
    "iomatch": dict(threshold=0.1, open_threshold=0.1, dist_align=True, warmup_steps=1),
    "simmatch": dict(threshold=0.1, warmup_steps=1, teacher="ema"),
    "softmatch": {},
}
# One that trains in generations refuses several seeds (tests/test_generations.py).
OF_SEEDS = [name for name in STATEFUL if name != "crest"]


def config_of(name):
    """A tiny recipe with SGD: Adam divides by tiny second moments, which amplifies rounding."""
    config = tiny_config(name)
    config.method_args.update(STATEFUL[name])
    config.optimizer.name = "sgd"
    return config


@pytest.mark.parametrize("name", NAMES)
def test_hidden_labels_reach_nothing_but_the_monitors(name):
    """No number of the state after a step is computed from them: they are not among its inputs."""
    method = getattr(importlib.import_module(f"ssljax.methods.{name}"), name)()
    uratio = 1 if "mixmatch" in name else 2
    steps = golden_steps.Steps(method, uratio=uratio)
    raw = golden_steps.raw_batch(0, uratio=uratio)
    if not method.views:
        raw = raw._replace(unlabeled=None, unlabeled_labels=None, unlabeled_index=None)
    state = steps.initial()
    program, shapes = jax.make_jaxpr(steps.function, return_shape=True)(state, raw)
    given = len(jax.tree.leaves(state))
    wanted = [position < given for position in range(len(jax.tree.leaves(shapes)))]

    def read(wanted):
        _, needed = partial_eval.dce_jaxpr(program.jaxpr, wanted)
        fields = [field for field, value in raw._asdict().items() if value is not None]
        return {field for field, x in zip(fields, needed[given:], strict=True) if x}

    assert {"labels"} <= read(wanted) <= {*raw._fields} - {"unlabeled_labels"}
    # The same question about the monitors finds them.
    watched = jax.tree.map(lambda _: True, wanted)
    assert ("unlabeled_labels" in read(watched)) == bool(method.views)


# Parts of states that stay as they are made.
CONSTANT = {"abc": ["rate"], "crest": ["target"], "dash": ["last"], "softmatch": ["target"]}


def assert_moved(name, before, after):
    """Each part of a method's state is another than before; else nothing is compared."""
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True
    ):
        part = jax.tree_util.keystr(path, simple=True)
        assert np.array_equal(x, y) == (part in CONSTANT.get(name, [])), part


@pytest.mark.slow
@pytest.mark.parametrize("name", STATEFUL)
def test_four_devices_compute_what_one_computes(name):
    four, four_sums = run_steps(build(config_of(name), 4), 3)
    experiment = build(config_of(name), 1)
    one, one_sums = run_steps(experiment, 3)
    assert largest_difference(weights(one), weights(four)) < 2e-4
    assert_moved(name, experiment.init_state().method, one.method)
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path(one.method), jax.tree.leaves(four.method), strict=True
    ):
        np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-5, err_msg=jax.tree_util.keystr(path))
    for key in one_sums:
        with np.errstate(invalid="ignore"):
            means = one_sums[key].compute(), four_sums[key].compute()
        np.testing.assert_allclose(*means, rtol=2e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", STATEFUL)
def test_an_interrupted_run_goes_on_bit_for_bit(name, tmp_path):
    experiment = build(config_of(name))
    run = experiment.compile_steps()
    window = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), experiment.shapes["window"])
    data = parallel.replicate(experiment.data(), experiment.devices)

    def steps(tree, count):
        after = run(*parallel.replicate((tree["state"], tree["window"]), experiment.devices),
                    data, count)  # fmt: skip
        return dict(zip(("state", "window"), parallel.fetch(after), strict=True))

    start = {"state": experiment.init_state(), "window": window}
    with Checkpoints(tmp_path, keep=0) as checkpoints:
        checkpoints.save(2, steps(start, 2))
        checkpoints.wait()
        step, saved = checkpoints.restore_newest(start)
    assert step == saved["state"].step == 2
    jax.tree.map(np.testing.assert_array_equal, steps(saved, 3), steps(start, 5))


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_SEEDS)
def test_several_seeds_in_one_program_are_each_its_own_run(name, tmp_path):
    config = config_of(name)
    config.num_seeds, config.num_steps, config.eval_every = 2, 4, 4
    seeds.train(recipe.build_seeds(config), tmp_path / "all")
    alone = config.copy_and_resolve_references()
    alone.num_seeds, alone.seed, alone.dataset = 1, 1, "digits.2@40-100"
    loop.train(build(alone), tmp_path / "alone")
    one, other = (final_state(tmp_path / x)[1]["state"] for x in ("all/seed=1", "alone"))
    for part in ("params", "method"):
        assert largest_difference([0, one[part]], [0, other[part]]) < 1e-4  # a state can be empty


@pytest.mark.parametrize("name", STATEFUL)
def test_an_npu_bundle_refuses_what_the_runner_cannot_keep(name, tmp_path, untraced):
    experiment = recipe.build(config_of(name), max_devices=1)
    with pytest.raises(UsageError, match=rf"config.method '{name}' has (further heads|a state)"):
        npu_bundle.write(experiment, tmp_path)
    assert not list(tmp_path.iterdir())
