"""NVIDIA GPUs that are not there: JAX's CUDA plugin compiles for them without a driver."""

import importlib.util
from collections.abc import Mapping
from types import MappingProxyType

import jax
from jax.experimental import topologies

from ssljax.errors import UsageError

_PER_HOST = 8
# What the compiler must know of an H100 SXM5 with 80 GB. The limits are from NVIDIA's CUDA
# programming guide for compute capability 9.0. The driver of a card reports the other numbers, and
# XLA records them under these names: xla/backends/gpu/target_config/specs/h100_sxm.txtpb.
H100: Mapping[str, str | float] = MappingProxyType(
    {
        "core_count": 132,
        "fpus_per_core": 128,
        "clock_rate_ghz": 1.98,
        "memory_bandwidth": 3_352_320_000_000,
        "device_memory_size": 84_942_979_072,
        "l2_cache_size": 50 << 20,
        "shared_memory_per_core": 228 << 10,
        "shared_memory_per_block": 48 << 10,
        "shared_memory_per_block_optin": 227 << 10,
        "registers_per_core_limit": 1 << 16,
        "registers_per_block_limit": 1 << 16,
        "threads_per_warp": 32,
        "threads_per_block_limit": 1024,
        "threads_per_core_limit": 2048,
        "block_dim_limit_x": (1 << 31) - 1,
        "block_dim_limit_y": (1 << 16) - 1,
        "block_dim_limit_z": (1 << 16) - 1,
        "cuda_compute_capability": "{ major: 9 feature_extension: ACCELERATED_FEATURES }",
    }
)
_SHARE = 0.75  # of a GPU's memory: what JAX reserves for programs by default


def memory(facts: Mapping[str, str | float]) -> int:
    """The bytes of a GPU that a run's programs may use."""
    return int(_SHARE * float(facts["device_memory_size"]))


def find(name: str, count: str, facts: Mapping[str, str | float], allowed: str) -> list[jax.Device]:
    """Devices for so many GPUs of one kind, with 8 per host.

    Args:
      name: the value of `--topology`, for messages.
      count: the number of GPUs, in digits: 1 to 8, or a multiple of 8.
      facts: the description of one GPU, such as `H100`.
      allowed: the allowed values of `--topology`, for messages.

    Raises:
      UsageError: the number is not allowed, or the compiler for GPUs is not installed.
    """
    number = int(count) if count.isdecimal() else 0
    if number < 1 or (number > _PER_HOST and number % _PER_HOST):
        raise UsageError(f"--topology is {name!r}; allowed: {allowed}")
    if not any(map(importlib.util.find_spec, ("jax_cuda12_plugin", "jax_cuda13_plugin"))):
        raise UsageError(
            f"--topology={name} needs JAX's CUDA plugin, the compiler for NVIDIA GPUs, which is "
            "not installed: pip install -e '.[cuda]'"
        )
    hosts = -(-number // _PER_HOST)
    try:
        found = topologies.get_topology_desc(
            platform="cuda",
            topology=f"1x{hosts}x{number // hosts}",
            target_config=describe(facts),
        )
    # JAX raises the second error if the installed plugin cannot compile for absent devices.
    except (jax.errors.JaxRuntimeError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"--topology={name}: JAX's CUDA plugin refuses ({reason})") from error
    return list(found.devices)


def describe(facts: Mapping[str, str | float]) -> str:
    """The description of a GPU as XLA's `GpuTargetConfigProto`, in protocol buffers' text form."""
    device = "\n".join(f"  {name}: {fact}" for name, fact in facts.items())
    return (
        f'gpu_device_info {{\n{device}\n}}\nplatform_name: "CUDA"\ndnn_version_info {{ major: 9 }}'
    )
