"""`--mode=compile`: what a recipe's step and evaluation need on chips that are not there."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import ml_collections

from ssljax import recipe
from ssljax.ahead import fit, topologies
from ssljax.ahead.launches import Launches
from ssljax.ahead.programs import Program, compile_program
from ssljax.ahead.topologies import Topology
from ssljax.checks import check_choice, prefix_errors
from ssljax.data import stand_ins
from ssljax.data.load import CONVENTIONS, LABELS_PER_CLASS
from ssljax.data.memory import describe
from ssljax.data.stand_ins import Shape
from ssljax.errors import UsageError
from ssljax.experiment import Experiment
from ssljax.training.fitting import TooLarge

Say = Callable[[str], None]
Data = tuple[Any, Any]


def compile_recipe(
    config: ml_collections.ConfigDict,
    topology: str,
    *,
    name: str,
    shape: Shape | None,
    largest: bool,
    say: Say,
) -> dict[str, Any]:
    """Compiles a recipe's step and evaluation, reads no data, and says what they need.

    Args:
      topology: see `topologies.find`.
      name: the recipe's.
      shape: of the data; None: the data set's, where it is known.
      largest: whether the largest batch whose step fits is looked for.
      say: is given lines for the reader, as they are known.

    Returns:
      What was found, for a JSON file: sizes in bytes, lengths in seconds.

    Raises:
      UsageError: the recipe, the topology or the data are not allowed.
    """
    place, data = topologies.find(topology), _data(config, shape)
    experiment = _build(config, place, data)
    say(_title(name, place, experiment))
    programs = {
        "step": _compiled(experiment.lower_steps()),
        "evaluation": _compiled(experiment.lower_evaluation()),
    }
    say(table(programs, place.chip.memory, experiment.step_flops))
    found: dict[str, Any] = {
        "recipe": name,
        "topology": topology,
        "devices": len(place.devices),
        "memory": place.chip.memory,
        "batch_size": experiment.batch_size,
        "images_per_step": experiment.images_per_step,
        "counted_flops": experiment.step_flops,
        **{part: _record(program, place.chip.memory) for part, program in programs.items()},
    }
    if largest:
        fits_now = _fits(programs["step"], place.chip.memory)
        found["largest_batch_size"] = _largest(config, place, data, experiment, fits_now, say)
    return found


def _data(config: ml_collections.ConfigDict, shape: Shape | None) -> Data:
    with prefix_errors(""):
        check_choice("config.unlabeled", config.unlabeled, CONVENTIONS)
        check_choice("config.labels_per_class", config.labels_per_class, LABELS_PER_CLASS)
    if config.split_file:
        raise UsageError(
            f"config.split_file is {config.split_file!r}, which --mode=compile does not read; "
            "allowed: '', and a name in config.dataset with as many labels"
        )
    with prefix_errors("config.dataset"):
        return stand_ins.load(
            config.dataset,
            unlabeled=config.unlabeled,
            balanced=config.labels_per_class == "balanced",
            image_size=config.image_size,
            stream=config.stream,
            shape=shape,
        )


def _build(config: ml_collections.ConfigDict, place: Topology, data: Data) -> Experiment:
    return recipe.build(config, data=data, started=True, on=place.devices, once=False)


def _compiled(lowered: jax.stages.Lowered) -> Program | TooLarge:
    try:
        return compile_program(lowered)
    except TooLarge as error:
        return error


def _largest(
    config: ml_collections.ConfigDict,
    place: Topology,
    data: Data,
    experiment: Experiment,
    fits_now: bool,
    say: Say,
) -> int:
    """The largest batch whose step fits, to an eighth of it; 0: none does."""
    unit = len(place.devices) * experiment.microbatches
    start = experiment.batch_size // unit

    def fits(units: int) -> bool:
        if units == start:
            return fits_now
        changed = config.copy_and_resolve_references()
        changed.per_worker_batch_size, changed.batch_size = 0, units * unit
        program = _compiled(_build(changed, place, data).lower_steps())
        say(f"a batch of {units * unit} {_verdict(program, place.chip.memory)}")
        return _fits(program, place.chip.memory)

    found = fit.largest(fits, start) * unit
    say(
        f"the largest batch that fits, to an eighth of it: {found} labelled images per step, "
        f"{found // len(place.devices)} per chip"
    )
    return found


def _fits(program: Program | TooLarge, memory: int) -> bool:
    """Whether a program fits; the compiler for GPUs, unlike libtpu, accepts any size."""
    return isinstance(program, Program) and program.peak <= memory


def _verdict(program: Program | TooLarge, memory: int) -> str:
    if isinstance(program, Program) and _fits(program, memory):
        return f"fits: its peak is {describe(program.peak)}"
    return f"does not fit: {_needed(program)}"


def _needed(program: Program | TooLarge) -> str:
    needed = program.peak if isinstance(program, Program) else program.needed
    return f"it needs {describe(needed)}" if needed else str(program)


def _title(name: str, place: Topology, experiment: Experiment) -> str:
    chips, batch = len(place.devices), experiment.batch_size
    return (
        f"{name} on {place.name}: {chips} chips; {batch} labelled images per step, "
        f"{batch // chips} per chip; {experiment.images_per_step} images enter the network"
    )


def table(programs: dict[str, Program | TooLarge], memory: int, counted: int) -> str:
    """The figures of each program in Markdown, by what it computes.

    Args:
      memory: bytes that a program can have on a chip.
      counted: multiplications and additions of a chip in a step, of `Experiment.step_flops`.
    """
    rows = [["per chip", *programs], ["---"] * (1 + len(programs))]

    def row(title: str, say: Callable[[Program], str]) -> None:
        cells = [say(p) if isinstance(p, Program) else "" for p in programs.values()]
        if any(cells):  # for GPUs, XLA reports neither the arithmetic nor the size of a program
            rows.append([title, *cells])

    fits = ["yes" if _fits(p, memory) else f"no: {_needed(p)}" for p in programs.values()]
    rows.append([f"fits in {describe(memory)}", *fits])
    row("peak of memory", lambda p: describe(p.peak))
    row("arguments", lambda p: describe(p.arguments))
    row("temporaries", lambda p: describe(p.temporaries))
    row("arithmetic, as XLA counts it", lambda p: _flops(p.flops) if p.flops else "")
    ours = [_flops(counted) if part == "step" else "" for part in programs]
    rows.append(["arithmetic, as counted before", *ours])
    kinds = {k for p in programs.values() if isinstance(p, Program) for k in p.collectives}
    for kind in sorted(kinds):
        row(kind, functools.partial(_sent, kind=kind))
    row("transfers to or from the host", lambda p: str(p.host_transfers or "none"))
    row("kernels", lambda p: _number(p.launches, "kernels"))
    row("… of libraries", lambda p: _number(p.launches, "of_libraries"))
    row("conditions that the host reads", lambda p: _number(p.launches, "host_conditions"))
    row("code", lambda p: "" if p.launches else describe(p.code))
    row("compiled in", lambda p: f"{p.seconds:.0f} s, {p.processor_seconds:.0f} s of processors")
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def _flops(number: float) -> str:
    return f"{number / 1e9:,.1f} GFLOP" if number >= 1e8 else f"{number / 1e6:,.1f} MFLOP"


def _sent(program: Program, kind: str) -> str:
    sent = program.collectives.get(kind)
    return f"{sent.operations}, {describe(sent.size)}" if sent else "none"


def _number(launches: Launches | None, kind: str) -> str:
    return f"{getattr(launches, kind):,}" if launches else ""


def _record(program: Program | TooLarge, memory: int) -> dict[str, Any]:
    if isinstance(program, TooLarge):
        return {"fits": False, "needed": program.needed}
    sent = {kind: x._asdict() for kind, x in program.collectives.items()}
    launched = program.launches and program.launches._asdict()
    parts = {**program._asdict(), "collectives": sent, "launches": launched}
    return {"fits": _fits(program, memory), **parts}
