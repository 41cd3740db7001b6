"""Steps that do not fit in the memory of an accelerator are refused before one is run."""

import signal

import jax
import jax.numpy as jnp
import pytest

from helpers.tiny import build, tiny_config
from ssljax import interrupts
from ssljax.errors import UsageError
from ssljax.run import loop
from ssljax.training import devices, fitting

MESSAGES = {
    "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries "
    "(109.55G) exceeds available HBM (15.75G).": 109.55 * 2**30,
    "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. "
    "Used 27.96G of 15.75G hbm. Exceeded hbm capacity by 12.21G.": 27.96 * 2**30,
    "Used 900.5M of 512.0M hbm": 900.5 * 2**20,
}
SIZES = {"batch_size": 64, "devices": 2, "unit": 4, "fixed": 1_000_000}


class Lowered:
    """What does not compile."""

    def __init__(self, message):
        self.message = message

    def compile(self):
        raise jax.errors.JaxRuntimeError(self.message)


@pytest.mark.parametrize("message", MESSAGES)
def test_what_the_compiler_says_is_needed(message):
    assert fitting.needed_memory(message) == pytest.approx(MESSAGES[message], abs=1)


def test_a_program_that_fits_is_compiled():
    lowered = jax.jit(lambda x: jnp.sort(x)[::2]).lower(jnp.zeros(1000))
    compiled = fitting.compile_step(lowered, **SIZES, limit=100_000)
    assert 6_000 <= fitting.peak(compiled) <= 20_000
    assert compiled(jnp.arange(1000.0)).shape == (500,)
    with pytest.raises(UsageError, match="a step needs .* kB where a device has 2.0 kB"):
        fitting.compile_step(lowered, **SIZES, limit=2_000)


def test_the_largest_batch_that_fits_is_named():
    lowered = Lowered("RESOURCE_EXHAUSTED: Used 9.0M of 4.0M hbm")
    with pytest.raises(UsageError) as error:
        fitting.compile_step(lowered, **SIZES, limit=4_000_000)
    # 3 of 8.4 million bytes beside what is fixed: 22.7 of 64 images, in fours.
    assert str(error.value) == (
        "config.batch_size is 64, 32 per device: a step needs 9.4 MB where a device has 4.0 MB; "
        "the largest one that fits is about 20; config.microbatches and config.remat need less "
        "memory"
    )
    with pytest.raises(UsageError, match="no multiple of 4 would fit"):
        fitting.compile_step(lowered, **SIZES, limit=1_100_000)


def test_another_fault_of_the_compiler_is_its_own():
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        fitting.compile_step(Lowered("INTERNAL: a fault"), **SIZES, limit=1)


def test_a_run_that_does_not_fit_leaves_nothing_behind(tmp_path, monkeypatch):
    experiment = build(tiny_config("supervised"))
    monkeypatch.setattr(devices, "memory_of", lambda device: 100_000)
    with pytest.raises(UsageError, match="config.batch_size is 8, 8 per device: a step needs"):
        loop.train(experiment, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_trains_with_what_was_compiled(tmp_path, monkeypatch):
    experiment = build(tiny_config("supervised"), devices=2)
    monkeypatch.setattr(devices, "memory_of", lambda device: 10**9)
    assert isinstance(experiment.fitting_steps().program, jax.stages.Compiled)
    found = loop.train(experiment, tmp_path / "run")
    assert found["step"] == 12
    # A complete run is not compiled again.
    monkeypatch.setattr(fitting, "compile_step", None)
    assert loop.train(experiment, tmp_path / "run") == found


def test_a_signal_while_the_steps_are_compiled_ends_the_run_before_it_begins(tmp_path, monkeypatch):
    experiment = build(tiny_config("supervised"))
    monkeypatch.setattr(devices, "memory_of", lambda device: 10**9)

    def interrupted(*args, **options):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(fitting, "compile_step", interrupted)
    with pytest.raises(interrupts.Ended):
        loop.train(experiment, tmp_path / "run")
    assert not (tmp_path / "run").exists()
