"""`--topology` -> devices that are not there, which programs can be compiled for."""

import importlib.util
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import jax
from jax._src import xla_bridge  # no public way to ask whether it has begun
from jax.experimental import topologies

from ssljax.ahead import gpus
from ssljax.errors import UsageError

_GIB = 1 << 30


class Chip(NamedTuple):
    """A kind of chips, of which a device is one."""

    memory: int  # bytes that programs may use; for TPUs, from libtpu 0.0.42.1's out-of-memory error
    example: str  # the smallest usual topology
    options: Mapping[str, str] = MappingProxyType({})  # further options of libtpu
    gpu: Mapping[str, str | float] | None = None  # description of a GPU; None: this is a TPU


CHIPS: Mapping[str, Chip] = MappingProxyType(
    {
        # The two cores of a chip are one device, as on the machines that are rented.
        "v4": Chip(int(30.75 * _GIB), "2x2x1", {"chip_config_name": "megacore"}),
        "v5e": Chip(int(15.75 * _GIB), "2x4"),
        "v5p": Chip(int(95.74 * _GIB), "2x2x1"),
        "v6e": Chip(int(31.25 * _GIB), "2x4"),
        "h100": Chip(gpus.memory(gpus.H100), "8", gpu=gpus.H100),
    }
)
# A machine without a TPU has no address and no kind of its own, which libtpu would otherwise look
# for, and complain; it writes no files; and other processes may compile at the same time.
_ENVIRONMENT = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_LOG_DIR": "disabled",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_WORKER_HOSTNAMES": "localhost",
}


class Topology(NamedTuple):
    """Chips that programs are compiled for."""

    name: str
    chip: Chip
    devices: list[jax.Device]


def find(name: str) -> Topology:
    """The chips of a topology as `v5e:2x4` or `h100:8`.

    JAX computes on the CPU in this process from then on.

    Raises:
      UsageError: there is no such topology, or the compiler for its chips is not installed.
    """
    kind, _, shape = name.partition(":")
    if kind not in CHIPS or not shape:
        raise UsageError(f"--topology is {name!r}; allowed: {_allowed()}")
    if not xla_bridge.backends_are_initialized():
        jax.config.update("jax_platforms", "cpu")
    chip = CHIPS[kind]
    if chip.gpu is not None:
        return Topology(name, chip, gpus.find(name, shape, chip.gpu, _allowed()))
    return Topology(name, chip, _tpus(name, chip))


def _tpus(name: str, chip: Chip) -> list[jax.Device]:
    if importlib.util.find_spec("libtpu") is None:
        raise UsageError(
            f"--topology={name} needs libtpu, the compiler for TPUs, which is not installed: "
            "pip install -e '.[tpu]'"
        )
    for variable, value in _ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=name, **chip.options)
    except jax.errors.JaxRuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(
            f"--topology is {name!r}, which libtpu refuses ({reason}); allowed: {_allowed()}"
        ) from error
    return list(found.devices)


def _allowed() -> str:
    examples = ", ".join(f"{kind}:{chip.example}" for kind, chip in CHIPS.items())
    return f"{examples}; larger ones, as v5e:16x16; h100:1 to h100:8, and multiples of 8"
