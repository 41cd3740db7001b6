"""Whether a compiled step fits in the memory of an accelerator, before any is run."""

import re
from typing import Any

import jax

from ssljax.data.memory import describe
from ssljax.errors import RunError, UsageError

_UNITS = {"M": 1 << 20, "G": 1 << 30}


class TooLarge(RunError):
    """A program does not fit in the memory of its device."""

    def __init__(self, needed: int | None, reason: str):
        super().__init__(reason)
        self.needed = needed  # bytes; None: the compiler does not say


def compile_fitting(lowered: jax.stages.Lowered) -> jax.stages.Compiled:
    """Compiles a program.

    Raises:
      TooLarge: the compiler finds no way to fit it in the device's memory.
    """
    try:
        return lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        text = " ".join(str(error).split())
        raise TooLarge(needed_memory(text), text[:200]) from error


def needed_memory(message: str) -> int | None:
    """Returns the bytes a program needs, read from libtpu's error message; None: it names none."""
    found = re.search(r"(?:Used |temporaries \()(\d+(?:\.\d+)?)([GM])", message)
    return int(float(found[1]) * _UNITS[found[2]]) if found else None


def peak(compiled: jax.stages.Compiled) -> int:
    """The bytes of all that a program holds at once."""
    memory: Any = compiled.memory_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    most: int = memory.peak_memory_in_bytes or held + memory.temp_size_in_bytes
    return most


def compile_step(
    lowered: jax.stages.Lowered, *, batch_size: int, devices: int, unit: int, fixed: int, limit: int
) -> jax.stages.Compiled:
    """Compiles a step that fits in the memory of each device.

    Args:
      batch_size: labelled images of a step.
      devices: how many there are.
      unit: what a batch size must be a multiple of.
      fixed: bytes of each device that do not depend on the batch: the state and the data.
      limit: bytes of each device that programs may use.

    Raises:
      UsageError: it does not fit; says which batch size about would.
    """
    try:
        compiled = compile_fitting(lowered)
        held = peak(compiled)
        if held <= limit:
            return compiled
        needed: int | None = held
    except TooLarge as error:
        needed = error.needed
    uses = f"needs {describe(needed)}" if needed else "does not fit"
    raise UsageError(
        f"config.batch_size is {batch_size}, {batch_size // devices} per device: a step {uses} "
        f"where a device has {describe(limit)}; "
        + _advice(batch_size, unit=unit, fixed=fixed, limit=limit, needed=needed)
    )


def _advice(batch_size: int, *, unit: int, fixed: int, limit: int, needed: int | None) -> str:
    """What to do where a step needs too much."""
    others = "config.microbatches and config.remat need less memory"
    if needed is None or needed <= fixed:
        return f"a smaller one is allowed; {others}"
    largest = int(batch_size * max(0, limit - fixed) / (needed - fixed)) // unit * unit
    if not largest:
        return f"no multiple of {unit} would fit; {others}"
    return f"the largest one that fits is about {largest}; {others}"
