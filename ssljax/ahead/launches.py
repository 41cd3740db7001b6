"""Counts the kernels of a GPU program's step, and the conditions that the host reads in it.

The counts come from the optimised program in HLO's text form.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

_COMPUTATION = re.compile(r"^(?P<entry>ENTRY )?%?(?P<name>[\w.-]+) \(.*\{\s*$")
_OPERATION = re.compile(r"^\s+(?:ROOT )?%?[\w.-]+ = .*? ?(?<![\w.%-])(?P<name>[a-z][a-z0-9-]*)\(")
_TURNS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_BODIES = re.compile(r"\b(?:body|condition)=%?([\w.-]+)")
_BRANCHES = re.compile(r"\b(?:true|false)_computation=%?([\w.-]+)")
_LISTED = re.compile(r"\bbranch_computations=\{([^}]*)\}")
_CALLED = re.compile(r"\bto_apply=%?([\w.-]+)")
_FREE = {
    "parameter", "constant", "bitcast", "tuple", "get-tuple-element", "after-all", "opt-barrier",
    "partition-id", "replica-id",
}  # fmt: skip

Computations = Mapping[str, Sequence[tuple[str, str]]]  # (operation's name, its line)


class Launches(NamedTuple):
    """Counts of the kernels and other work that one step launches on a GPU.

    A loop of unknown length counts as one iteration, and a conditional as its longer branch.
    """

    kernels: int
    of_libraries: int  # kernels that are calls of cuDNN or cuBLAS
    host_conditions: int  # loops of unknown length and conditionals, whose condition the host reads

    def plus(self, other: "Launches", turns: int = 1) -> "Launches":
        """The sum of both, with the other's counts multiplied by `turns`, a loop's iterations."""
        return Launches(*(mine + turns * its for mine, its in zip(self, other, strict=True)))


_NONE = Launches(0, 0, 0)


def count(program: str) -> Launches:
    """Counts what one step of a program in HLO's text form launches.

    If a loop of unknown length in the entry computation launches more than the rest of it, each of
    its iterations is a step, and the rest is not counted. The host reads that loop's condition too.
    """
    computations, entry = _parse(program)
    operations = computations[entry]
    every = _count(computations, operations)
    for operation in operations:
        if operation[0] == "while" and not _turns(operation[1]):
            turn = _count(computations, [operation])
            if 2 * turn.kernels > every.kernels:
                return turn
    return every


def _parse(program: str) -> tuple[Computations, str]:
    """The computations of a program by their names, and the entry's name."""
    found: dict[str, list[tuple[str, str]]] = {}
    entry, current = "", None
    for line in program.splitlines():
        if begins := _COMPUTATION.match(line):
            current = found.setdefault(begins["name"], [])
            entry = begins["name"] if begins["entry"] else entry
        elif current is not None and (operation := _OPERATION.match(line)):
            current.append((operation["name"], line))
    return found, entry


def _count(computations: Computations, operations: Sequence[tuple[str, str]]) -> Launches:
    total = _NONE
    for name, line in operations:
        if name == "while":
            turns = _turns(line)
            parts = (_count(computations, computations[x]) for x in _BODIES.findall(line))
            for part in parts:
                total = total.plus(part, turns or 1)
            total = total.plus(Launches(0, 0, int(not turns)))
        elif name == "conditional":
            ways = [_count(computations, computations[x]) for x in _branches(line)]
            total = total.plus(max(ways, default=_NONE)).plus(Launches(0, 0, 1))
        elif name == "call":
            for called in _CALLED.findall(line):
                total = total.plus(_count(computations, computations[called]))
        elif name not in _FREE and not name.endswith("-done"):
            total = total.plus(Launches(1, int(name == "custom-call"), 0))
    return total


def _turns(line: str) -> int:
    """The number of iterations of a loop; 0: unknown before it runs."""
    known = _TURNS.search(line)
    return int(known[1]) if known else 0


def _branches(line: str) -> list[str]:
    listed = _LISTED.search(line)
    names = listed[1].split(",") if listed else _BRANCHES.findall(line)
    return [name.strip().lstrip("%") for name in names]
