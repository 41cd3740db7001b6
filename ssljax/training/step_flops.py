"""The multiplications and additions of a step, counted in its traced program."""

import math
from typing import Any

from ssljax.training.step_memory import inner_programs


def count(program: Any, platform: str = "cpu") -> int:
    """Multiplications and additions of a program's convolutions and matrix products.

    Products with zeros that pad images are counted; those with zeros that a stride's gradient puts
    between pixels are not. The body of a loop of unknown length counts once. Of several branches,
    the one with most operations counts.

    Args:
      program: a jaxpr, as `jax.make_jaxpr` returns it in `.jaxpr`.
      platform: platform of the devices, which selects the branches of `lax.platform_dependent`.
    """
    return sum(_of_operation(eqn, platform) for eqn in program.eqns)


def _of_operation(eqn: Any, platform: str) -> int:
    name, params = eqn.primitive.name, eqn.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        shape = eqn.invars[0].aval.shape
        return 2 * _size(eqn) * math.prod(shape[axis] for axis in contracted)
    if name == "conv_general_dilated":
        _, channels, *sides = params["dimension_numbers"].rhs_spec
        kernel = eqn.invars[1].aval.shape
        terms = kernel[channels] * math.prod(kernel[axis] for axis in sides)
        return 2 * _size(eqn) * terms // math.prod(params["lhs_dilation"])
    inner = [count(program, platform) for program in inner_programs(eqn, platform)]
    if name == "cond":
        return max(inner, default=0)
    return params.get("length", 1) * sum(inner) if name == "scan" else sum(inner)


def _size(eqn: Any) -> int:
    return math.prod(eqn.outvars[0].aval.shape)
