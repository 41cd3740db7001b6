"""Error messages for knobs that do not exist, and suggestions of the intended one."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from ssljax import lookup

# Names used by other code -> the last part of the name here, the likeliest first.
_ALIASES: dict[str, tuple[str, ...]] = {
    "wd": ("weight_decay",),
    "learning_rate": ("lr",),
    "mu": ("uratio",),
    "T": ("temperature",),
    "tau": ("threshold",),
    "p_cutoff": ("threshold",),
    "lambda_u": ("unlabeled_weight", "w_match", "consistency_weight", "vat_weight"),
    "wu": ("unlabeled_weight", "w_match", "consistency_weight", "vat_weight"),
    "epochs": ("num_epochs",),
    "steps": ("num_steps",),
    "num_train_iter": ("num_steps",),
    "bs": ("batch_size",),
    "batch": ("batch_size",),
    "ema_m": ("ema_decay",),
}


def unknown_knob(knob: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    """Returns the error message for an unknown knob: its correct spelling, the nearest knob, or the
    methods or models that have such an argument."""
    missing = f"config.{knob} does not exist"
    if "-" in knob and knob.replace("-", "_") in known:
        return f"{missing}: knobs are written with _, --config.{knob.replace('-', '_')}"
    names = _names(knob)
    ends = {name.rpartition(".")[2] for name in known}
    near = difflib.get_close_matches(names[-1], ends, n=1, cutoff=0.7)
    if isinstance(known, Mapping) and not ends & {*names}:
        for kind in lookup.PACKAGES:
            if kind in known and (owners := _owners(kind, names, close=not near)):
                args = lookup.arguments(kind, str(known[kind]))
                name, of = owners
                return (
                    f"{missing}: config.{kind} {known[kind]} has no {name}, an argument of {of}; "
                    f"config.{kind}_args has {', '.join(args) or 'no argument'}"
                )
    return f"{missing}; the nearest knob is config.{nearest_knob(knob, known)}"


def _names(knob: str) -> tuple[str, ...]:
    """Returns the possible meanings of the last part of a knob's name."""
    last = knob.replace("-", "_").rpartition(".")[2]
    return (*_ALIASES.get(last, ()), last)


def _owners(kind: str, names: Sequence[str], *, close: bool) -> tuple[str, str] | None:
    """Returns the first name that is an argument of some methods or models, and lists these.

    Args:
      close: whether an argument with a similar spelling to the last name counts, too.
    """
    declared = lookup.declared(kind)
    if close:
        every = {arg: None for args in declared.values() for arg in args}
        names = [*names, *difflib.get_close_matches(names[-1], every, n=1, cutoff=0.8)]
    for name in names:
        of = [owner for owner, args in declared.items() if name in args]
        if of:
            return name, ", ".join(of)
    return None


def nearest_knob(knob: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    """Returns the nearest known knob: by the last part of its name, then by the full name."""
    spelt = knob.replace("-", "_")
    last = spelt.rpartition(".")[2]
    ends = {name.rpartition(".")[2]: name for name in reversed(list(known))}
    for name in _names(knob):
        if name in ends:
            return ends[name]
    nearest = difflib.get_close_matches(spelt, known, n=1, cutoff=0.7)
    nearest = nearest or difflib.get_close_matches(last, ends, n=1, cutoff=0.6)
    nearest = nearest or difflib.get_close_matches(spelt, known, n=1, cutoff=0.0)
    return ends[nearest[0]] if nearest[0] in ends else nearest[0]
