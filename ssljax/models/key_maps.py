"""Renames tensors of published weights to the parameters of our models, by each model's rules."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

Tensors = Mapping[str, np.ndarray]


def same(x: np.ndarray) -> np.ndarray:
    return x


def transposed(x: np.ndarray) -> np.ndarray:
    """Converts a dense layer of PyTorch, `[out, in]` -> `[in, out]`."""
    return x.T if x.ndim == 2 else x


def hwio(x: np.ndarray) -> np.ndarray:
    """Converts a convolution of PyTorch, `[out, in, h, w]` -> `[h, w, in, out]`."""
    return x.transpose(2, 3, 1, 0) if x.ndim == 4 else x


class Rule(NamedTuple):
    """The parameter for tensors whose names match a pattern."""

    pattern: str  # regular expression that matches the entire name
    # Path of the parameter, such as `block_\1/qkv/kernel`, with the groups of the pattern. "": the
    # model does not need the tensor, and computes the same without it. The part after a # orders
    # tensors that are concatenated along their last axis: query, key, value.
    path: str
    change: Callable[[np.ndarray], np.ndarray] = same


class Translated(NamedTuple):
    """Tensors with a model's names."""

    params: dict[str, np.ndarray]  # path -> array; paths of BatchNorm statistics end in mean or var
    sources: dict[str, tuple[str, ...]]  # path -> names of the tensors that it comes from
    without_place: list[str]  # names of tensors that no model of this kind needs
    unknown: list[str]  # names that match no rule
    notes: Sequence[str] = ()  # descriptions of the changes to the tensors
    # Prefixes of paths: of parameters that may be missing, and of tensors that may be left out.
    may_be_new: tuple[str, ...] = ()
    may_be_left: tuple[str, ...] = ()


def unchanged(tensors: Tensors) -> Translated:
    """Tensors that already have our names."""
    return Translated(dict(tensors), {name: (name,) for name in tensors}, [], [])


def torch_layer(pattern: str, path: str, change: Callable[[np.ndarray], np.ndarray]) -> list[Rule]:
    """The rules of a dense layer or convolution of PyTorch."""
    return [
        Rule(rf"{pattern}\.weight", f"{path}/kernel", change),
        Rule(rf"{pattern}\.bias", f"{path}/bias"),
    ]


def torch_norm(pattern: str, path: str) -> list[Rule]:
    """The rules of a LayerNorm or BatchNorm of PyTorch."""
    return [
        Rule(rf"{pattern}\.weight", f"{path}/scale"),
        Rule(rf"{pattern}\.bias", f"{path}/bias"),
        Rule(rf"{pattern}\.running_mean", f"{path}/mean"),
        Rule(rf"{pattern}\.running_var", f"{path}/var"),
        Rule(rf"{pattern}\.num_batches_tracked", ""),
    ]


def translate(tensors: Tensors, rules: Sequence[Rule]) -> Translated:
    """Renames every tensor by the first rule whose pattern matches its name."""
    parts: dict[str, dict[str, str]] = {}  # path -> part -> name of the tensor
    changes, without_place, unknown = {}, [], []
    for name in tensors:
        found = next(
            ((rule, match) for rule in rules if (match := re.fullmatch(rule.pattern, name))), None
        )
        if found is None:
            unknown.append(name)
        elif not found[0].path:
            without_place.append(name)
        else:
            path, _, part = found[1].expand(found[0].path).partition("#")
            parts.setdefault(path, {})[part] = name
            changes[name] = found[0].change
    params, sources = {}, {}
    for path, names in parts.items():
        ordered = [names[part] for part in sorted(names, key=_place)]
        params[path] = _joined([changes[name](tensors[name]) for name in ordered])
        sources[path] = tuple(ordered)
    return Translated(params, sources, without_place, unknown)


def _place(part: str) -> int:
    return "qkv".find(part[:1])


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    fit = len({x.shape[:-1] for x in arrays}) == 1
    return np.concatenate(arrays, axis=-1) if fit and len(arrays) > 1 else arrays[0]


def unstacked(tensors: Tensors, pattern: str) -> dict[str, np.ndarray]:
    """Splits layers that are stacked in one array: `a/kernel [12, …]` -> `a_0/kernel`, …

    Args:
      pattern: regular expression for the beginning of their names, `a`.
    """
    found: dict[str, np.ndarray] = {}
    for name, x in tensors.items():
        match = re.match(rf"({pattern})(/.*)", name)
        layers: Iterable[tuple[int, np.ndarray]] = enumerate(x) if match and x.ndim else ()
        rows = {f"{match[1]}_{i}{match[2]}": row for i, row in layers} if match else {name: x}
        found |= rows
    return found
