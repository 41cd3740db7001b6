"""Checks whether a compiled step fits in the memory of an accelerator, before any step runs."""

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
        self.needed = needed  # bytes; None: the compiler's message has no number


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
    """The bytes that a program needs, from libtpu's error message; None: it has no number."""
    found = re.search(r"(?:Used |temporaries \()(\d+(?:\.\d+)?)([GM])", message)
    return int(float(found[1]) * _UNITS[found[2]]) if found else None


def peak(compiled: jax.stages.Compiled) -> int:
    """The peak memory of a program in bytes."""
    memory: Any = compiled.memory_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    most: int = memory.peak_memory_in_bytes or held + memory.temp_size_in_bytes
    return most


def compile_step(
    lowered: jax.stages.Lowered, *, batch_size: int, devices: int, unit: int, fixed: int, limit: int
) -> jax.stages.Compiled:
    """Compiles a step that fits in the memory of each device.

    Args:
      batch_size: labelled images per step.
      devices: number of devices.
      unit: number of which a batch size must be a multiple.
      fixed: bytes per device that do not depend on the batch: the state and the data.
      limit: bytes per device that programs may use.

    Raises:
      UsageError: the step does not fit; the message suggests a batch size.
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
    """Advice for a step that needs too much memory."""
    others = "config.microbatches and config.remat need less memory"
    if needed is None or needed <= fixed:
        return f"a smaller one is allowed; {others}"
    largest = int(batch_size * max(0, limit - fixed) / (needed - fixed)) // unit * unit
    if not largest:
        return f"no multiple of {unit} would fit; {others}"
    return f"the largest one that fits is about {largest}; {others}"
