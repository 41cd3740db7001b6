"""Reads the memory, arithmetic, transfers and size of a compiled program."""

import math
import re
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from ssljax.ahead import launches
from ssljax.ahead.launches import Launches
from ssljax.training import fitting

_COLLECTIVES = (
    "all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute",
    "collective-broadcast",
)  # fmt: skip
_OPERATION = re.compile(
    r"^\s+(?:ROOT )?%?[\w.-]+ = (?P<type>.*?) (?P<name>[a-z][a-z0-9-]*)\("
    r"(?:.*?, channel_id=(?P<channel>\d+))?"
)
_SHAPE = re.compile(r"\b(?P<dtype>pred|bf16|[sufc]\d+\w*)\[(?P<sides>[\d,]*)\]")
_WIDTHS = {"pred": 1, "bf16": 2}
_TO_HOST = ("infeed", "outfeed", "send", "recv")


class Sent(NamedTuple):
    """The transfers of one kind of collective."""

    operations: int  # of the program
    size: int  # bytes of their results on a device


class _Operation(NamedTuple):
    """A line of a program in HLO's text form."""

    type: str
    name: str
    channel: str | None
    computation: str  # the line that begins the computation that it is in


class Program(NamedTuple):
    """Figures of a program on one of its devices; sizes are in bytes."""

    seconds: float  # that it took to compile
    processor_seconds: float  # of all cores, for that
    arguments: int
    temporaries: int
    peak: int  # of all that is held at once
    code: int
    flops: float | None  # of one step, as XLA counts them: loops once; None: it does not say
    collectives: Mapping[str, Sent]
    host_transfers: int
    launches: Launches | None  # of one step; None: the device is no GPU


def compile_program(lowered: jax.stages.Lowered) -> Program:
    """Compiles a program and looks at it.

    Raises:
      fitting.TooLarge: the compiler finds no way to fit it in the device's memory.
    """
    start, processor = time.perf_counter(), time.process_time()
    compiled = fitting.compile_fitting(lowered)
    seconds, processor = time.perf_counter() - start, time.process_time() - processor
    memory: Any = compiled.memory_analysis()
    cost: Any = compiled.cost_analysis()
    cost = cost[0] if isinstance(cost, list) else cost or {}
    text = compiled.as_text() or ""
    return Program(
        seconds=seconds,
        processor_seconds=processor,
        arguments=memory.argument_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        peak=fitting.peak(compiled),
        code=memory.generated_code_size_in_bytes,
        flops=cost.get("flops"),
        collectives=collectives(text),
        host_transfers=host_transfers(text),
        launches=launches.count(text) if _is_for_gpus(compiled) else None,
    )


def _is_for_gpus(compiled: jax.stages.Compiled) -> bool:
    devices = jax.tree.leaves(compiled.input_shardings)[0].device_set
    return next(iter(devices)).platform in ("cuda", "gpu")


def collectives(program: str) -> dict[str, Sent]:
    """The transfers between devices, by name of the operation, of a program as HLO text."""
    found: dict[str, Sent] = {}
    first: dict[tuple[str, int, str], str] = {}  # the computation that a transfer is first seen in
    for operation in _operations(program):
        base = operation.name.removesuffix("-start")
        if base not in _COLLECTIVES:
            continue
        sizes = [_bytes(shape) for shape in _SHAPE.finditer(operation.type)]
        if operation.name.endswith("-start") and base != "all-reduce":
            # Its operands, then its results.
            sizes = sizes[len(sizes) // 2 :] if base == "all-gather" else [max(sizes, default=0)]
        # On TPUs, a transfer that overlaps with other work is listed once in each computation that
        # it overlaps with. All of these lines have its channel.
        if operation.channel:
            transfer = base, sum(sizes), operation.channel
            if first.setdefault(transfer, operation.computation) != operation.computation:
                continue
        before = found.get(base, Sent(0, 0))
        found[base] = Sent(before.operations + 1, before.size + sum(sizes))
    return found


def host_transfers(program: str) -> int:
    """The number of operations that exchange data with the host while the program runs."""
    names = [operation.name.removesuffix("-done") for operation in _operations(program)]
    calls = re.findall(r'custom_call_target="([^"]*)"', program)
    return sum(name in _TO_HOST for name in names) + sum("callback" in call for call in calls)


def _operations(program: str) -> list[_Operation]:
    """The operations of a program in HLO's text form."""
    found, computation = [], ""
    for line in program.splitlines():
        if line.endswith("{") and not line.startswith(" "):
            computation = line
        if match := _OPERATION.match(line):
            found.append(_Operation(match["type"], match["name"], match["channel"], computation))
    return found


def _bytes(shape: Any) -> int:
    width = _WIDTHS.get(shape["dtype"]) or int(re.findall(r"\d+", shape["dtype"])[0]) / 8
    return int(math.prod(int(side) for side in shape["sides"].split(",") if side) * width)
