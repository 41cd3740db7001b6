"""How a process finds the others of its run. What they tell each other is in `hosts.py`."""

import warnings
from typing import Any

import jax
from jax._src import clusters, distributed  # no public way to either; jax>=0.10 has both

from ssljax.errors import RunError, UsageError
from ssljax.training import hosts

# Seconds after which a silent process counts as dead for JAX, and after which it waits for others
# no more. Its way to say so is an abort with a stack trace: `hosts.py` and this file are earlier.
_SILENCE, _WAITING = 45, 360
_PATIENCE = 300.0  # seconds until the others have to be there


def start(coordinator: str, num_processes: int, process_id: int, auto: bool = True) -> None:
    """Joins the processes of a run, as JAX's backend starts; a second call does nothing.

    Args:
      coordinator: `host:port` of process 0; "": where TPU pods, SLURM or Open MPI name it, else
        this process is alone.
      num_processes: of the run; 0: as `coordinator` "".
      process_id: this one's, from 0.
      auto: whether TPU pods, SLURM and Open MPI are asked.

    Raises:
      UsageError: the numbers do not fit together.
      RunError: the others do not come.
    """
    if distributed.global_state.client is not None:
        return
    given: dict[str, Any] = {}
    if coordinator or num_processes or process_id:
        _check(coordinator, num_processes, process_id)
        given = {
            "coordinator_address": coordinator,
            "num_processes": num_processes,
            "process_id": process_id,
            "coordinator_bind_address": _bind_address(coordinator),
            "cluster_detection_method": None if auto else "deactivate",
        }
        where = coordinator
    elif auto and (cluster := _cluster()):
        num_processes, process_id, where = *cluster[1:], cluster[0]
    else:
        return
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    others = f"the {num_processes - 1} others" if process_id == 0 else "process 0 and the others"
    waiting = f"process {process_id} of {num_processes} waits for {others} ({where})"
    alone = "" if coordinator else "; config.distributed.auto=false trains without them"
    given |= {"heartbeat_timeout_seconds": _SILENCE, "initialization_timeout": _WAITING}
    late = (
        f"the processes of the run did not find each other in {_PATIENCE:.0f} s: {waiting}{alone}"
    )
    try:
        with hosts.telling(lambda: waiting + alone), hosts.ending_after(_PATIENCE, late):
            jax.distributed.initialize(**given)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise RunError(
            f"the processes of the run did not find each other{alone}: {reason}"
        ) from error
    hosts.look_after_others()


def are_several(coordinator: str, num_processes: int, process_id: int, auto: bool = True) -> bool:
    """Whether `start` with these will join this process with others."""
    del num_processes, process_id
    return bool(coordinator) or (auto and _cluster() is not None)


def _cluster() -> tuple[str, int, int] | None:
    """What has started this process as one of several: TPU pods, SLURM or Open MPI; how many there
    are; and which one it is.

    Raises:
      RunError: it cannot be asked.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # of Kubernetes, which is not ours
            for kind in clusters.ClusterEnv._cluster_types:
                there = not kind.opt_in_only_method and kind.is_env_present()
                if there and (count := kind.get_process_count()) > 1:
                    return kind.name, count, kind.get_process_id()
    except Exception as error:  # each asks another service
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise RunError(
            f"whether this process is one of several cannot be told ({reason}); "
            "config.distributed.auto=false trains alone"
        ) from error
    return None


def _check(coordinator: str, num_processes: int, process_id: int) -> None:
    port = coordinator.rpartition(":")[2]
    is_address = ":" in coordinator and port.isdecimal() and 0 < int(port) < 65536
    if not is_address or not 0 <= process_id < num_processes:
        raise UsageError(
            f"config.distributed is coordinator={coordinator!r} num_processes={num_processes} "
            f"process_id={process_id}; allowed: host:port, from 1 up, and from 0 to "
            "num_processes - 1"
        )


def _bind_address(coordinator: str) -> str | None:
    """Where the coordinator listens, None: wherever JAX does, at every address of its machine.

    Where all processes are on this machine, nobody else is to reach it.
    """
    host, _, port = coordinator.rpartition(":")
    if host == "localhost":
        host = "127.0.0.1"
    is_local = host.startswith("127.") or host == "[::1]"
    return f"{host}:{port}" if is_local else None
