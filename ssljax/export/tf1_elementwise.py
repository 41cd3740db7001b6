"""Elementwise primitives of JAX as TensorFlow 1.15 operations; `tf1_rules.py` has the others."""

import numpy as np
from jax import lax

from ssljax.export.tf1_rules import (
    Rule,
    Unsupported,
    input_shape,
    raw,
    result,
    shape_dtype,
    with_wildcard,
)


def _unary(name: str) -> Rule:
    return lambda eqn, x: getattr(raw, name)(x=x)


def _binary(name: str) -> Rule:
    return lambda eqn, x, y: getattr(raw, name)(x=x, y=y)


def _logical(of_bools: Rule, of_bits: Rule) -> Rule:
    return lambda eqn, *xs: (of_bools if result(eqn).dtype == bool else of_bits)(eqn, *xs)


def _maximum(eqn, x, y):
    """Converts `max`. JAX's softmax begins with max(x, -∞), which is x; NPUs refuse infinities."""
    for value, other in ((x, y), (y, x)):
        if isinstance(value, np.ndarray) and np.all(value == -np.inf):
            return other
    return raw.Maximum(x=x, y=y)


def _div(eqn, x, y):
    floating = np.issubdtype(result(eqn).dtype, np.floating)
    return raw.RealDiv(x=x, y=y) if floating else raw.TruncateDiv(x=x, y=y)


def _pow(eqn, x, y):
    dtype = result(eqn).dtype
    return raw.Pow(x=x, y=raw.Cast(x=y, DstT=dtype) if y.dtype != dtype else y)


def _integer_pow(eqn, x):
    if eqn.params["y"] == 2:
        return raw.Square(x=x)
    return raw.Pow(x=x, y=np.array(eqn.params["y"], result(eqn).dtype))


def _one_minus_square(eqn, x):
    """Converts 1 - x² in JAX's way, which is exact where the square is near 1."""
    one = np.ones((), result(eqn).dtype)
    return raw.Mul(x=raw.Add(x=one, y=x), y=raw.Sub(x=one, y=x))


def _erfc(eqn, x):
    """Converts `erfc` to operations with `erf`, which NPUs support."""
    return raw.Sub(x=np.ones((), result(eqn).dtype), y=raw.Erf(x=x))


def _round(eqn, x):
    if eqn.params["rounding_method"] != lax.RoundingMethod.TO_NEAREST_EVEN:
        raise Unsupported("rounding halves away from zero; Rint rounds them to even")
    return raw.Rint(x=x)


def _cast(eqn, x):
    dtype = eqn.params["new_dtype"]
    return x if shape_dtype(eqn) == dtype else raw.Cast(x=x, DstT=dtype)


def _clamp(eqn, low, x, high):
    return raw.Minimum(x=raw.Maximum(x=x, y=low), y=high)


def _identity(eqn, x):
    return x


def _broadcast_in_dim(eqn, x):
    """Gives a loose value its new rank; rules that need the full lengths broadcast it later."""
    shape = [1] * len(result(eqn).shape)
    for position, dimension in enumerate(eqn.params["broadcast_dimensions"]):
        length = x.shape[position]
        shape[dimension] = input_shape(eqn)[position] if length is None else length
    if isinstance(x, np.ndarray):
        return x.reshape(shape)
    return x if len(shape) == len(x.shape) else raw.Reshape(tensor=x, shape=with_wildcard(shape))


ELEMENTWISE: dict[str, Rule] = {
    "abs": _unary("Abs"),
    "add": _binary("AddV2"),
    "add_any": _binary("AddV2"),
    "and": _logical(_binary("LogicalAnd"), _binary("BitwiseAnd")),
    "ceil": _unary("Ceil"),
    "clamp": _clamp,
    "convert_element_type": _cast,
    "copy": _identity,
    "cos": _unary("Cos"),
    "div": _div,
    "eq": _binary("Equal"),
    "erf": _unary("Erf"),
    "erfc": _erfc,
    "exp": _unary("Exp"),
    "expm1": _unary("Expm1"),
    "floor": _unary("Floor"),
    "ge": _binary("GreaterEqual"),
    "gt": _binary("Greater"),
    "integer_pow": _integer_pow,
    "is_finite": _unary("IsFinite"),
    "le": _binary("LessEqual"),
    "log": _unary("Log"),
    "log1p": _unary("Log1p"),
    "logistic": _unary("Sigmoid"),
    "lt": _binary("Less"),
    "max": _maximum,
    "min": _binary("Minimum"),
    "mul": _binary("Mul"),
    "ne": _binary("NotEqual"),
    "neg": _unary("Neg"),
    "not": _logical(_unary("LogicalNot"), _unary("Invert")),
    "one_minus_square": _one_minus_square,  # jax 0.12 and newer
    "or": _logical(_binary("LogicalOr"), _binary("BitwiseOr")),
    "pow": _pow,
    "rem": _binary("TruncateMod"),
    "round": _round,
    "rsqrt": _unary("Rsqrt"),
    "shift_left": _binary("LeftShift"),
    "shift_right_arithmetic": _binary("RightShift"),
    "sign": _unary("Sign"),
    "sin": _unary("Sin"),
    "sqrt": _unary("Sqrt"),
    "square": _unary("Square"),
    "stop_gradient": lambda eqn, x: raw.StopGradient(input=x),
    "sub": _binary("Sub"),
    "tanh": _unary("Tanh"),
    "broadcast_in_dim": _broadcast_in_dim,
}
