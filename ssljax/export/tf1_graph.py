"""Converts a JAX function to a graph of TensorFlow 1.15 operations, for systems without JAX.

jax2tf makes a single XlaCallModule, which neither TensorFlow 1 nor Ascend's tools can read. `lower`
goes through the function's jaxpr instead; `tf1_rules.py`, `tf1_products.py` and
`tf1_elementwise.py` have an operation for each primitive.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ssljax.errors import UsageError
from ssljax.export.tf1_elementwise import ELEMENTWISE
from ssljax.export.tf1_products import PRODUCTS
from ssljax.export.tf1_rules import (
    CUSTOM,
    TRANSPARENT,
    WHOLE,
    Unsupported,
    Value,
    choose,
    known,
)
from ssljax.log import quiet_import
from ssljax.models import convolution

with quiet_import():
    import tensorflow as tf

_PRODUCER = 134  # the version that TensorFlow 1.15 gives its graphs
_OF_WHOLE = WHOLE | PRODUCTS  # the rules that take whole values, see `tf1_rules.py`
_CALLS = ("jit", "pjit", "closed_call", "core_call", "remat2")
_CUSTOM_CALLS = ("custom_jvp_call", "custom_vjp_call")


def lower(
    fn: Callable[[Mapping[str, jax.Array]], Mapping[str, jax.Array]],
    args: Mapping[str, jax.ShapeDtypeStruct],
) -> tf.compat.v1.GraphDef:
    """Converts a pure function to a graph.

    Args:
      fn: named arrays -> named arrays; the names become those of the placeholders and of the
        outputs' nodes. Results that only depend on constants become constants.
      args: arguments of `fn`. A dimension may be symbolic (`jax.export.symbolic_shape`).

    Raises:
      UsageError: `fn` uses a primitive for which TensorFlow 1.15 has no operation.
    """
    with convolution.portable():
        closed, shapes = jax.make_jaxpr(fn, return_shape=True)(dict(args))
    names, outputs = sorted(args), sorted(shapes)
    with tf.Graph().as_default() as graph:
        inputs = [
            tf.raw_ops.Placeholder(
                dtype=args[name].dtype,
                shape=[d if known([d]) else None for d in args[name].shape],
                name=name,
            )
            for name in names
        ]
        lowering = _Lowering(dict(zip(names, inputs, strict=True)), args)
        values = lowering.run(closed.jaxpr, closed.consts, inputs, "")
        for name, value, var in zip(outputs, values, closed.jaxpr.outvars, strict=True):
            with _naming(f"output {name}"):
                tf.raw_ops.Identity(input=lowering.whole(value, var.aval), name=name)
        meta_graph = tf.compat.v1.train.export_meta_graph(
            graph=graph, clear_devices=True, strip_default_attrs=True
        )
    return _plain(meta_graph.graph_def)


def save(graph: tf.compat.v1.GraphDef, path: Path) -> None:
    """Writes a frozen graph; the same graph always gives the same bytes."""
    path.write_bytes(graph.SerializeToString(deterministic=True))


def _plain(graph: tf.compat.v1.GraphDef) -> tf.compat.v1.GraphDef:
    """Removes attributes that later versions of TensorFlow add."""
    for node in graph.node:
        for name in [name for name in node.attr if name.startswith("_")]:
            del node.attr[name]
    graph.ClearField("library")
    graph.versions.Clear()
    graph.versions.producer = _PRODUCER
    return graph


class _Lowering:
    """Emits equations into the current graph."""

    def __init__(self, inputs: Mapping[str, Value], args: Mapping[str, jax.ShapeDtypeStruct]):
        # Source of each symbolic dimension's length: symbol -> (input, axis).
        self._symbols = {
            str(d): (inputs[name], axis)
            for name, arg in args.items()
            for axis, d in enumerate(arg.shape)
            if not known([d])
        }

    def run(self, jaxpr: Any, consts: Sequence[Any], inputs: Sequence[Value], scope: str) -> list:
        """Returns the values of a jaxpr's outputs, which are loose (see `tf1_rules.py`)."""
        env: dict[Any, Value] = {}

        def read(atom):
            return np.asarray(atom.val, atom.aval.dtype) if hasattr(atom, "val") else env[atom]

        env.update(zip(jaxpr.constvars, map(np.asarray, consts), strict=True))
        env.update(zip(jaxpr.invars, inputs, strict=True))
        for eqn in jaxpr.eqns:
            inner = _join(scope, str(eqn.source_info.name_stack))
            outputs = self._equation(eqn, [read(x) for x in eqn.invars], inner)
            for var, value in zip(eqn.outvars, outputs, strict=True):
                env[var] = value
        return [read(x) for x in jaxpr.outvars]

    def _equation(self, eqn, values, scope):
        name = eqn.primitive.name
        if name in _CALLS:
            return self._call(eqn.params["jaxpr"], values, scope)
        if name in _CUSTOM_CALLS and _custom_name(eqn) in TRANSPARENT:
            return self._call(eqn.params["call_jaxpr"], values, scope)
        if name == "scan":
            return self._scan(eqn, values, scope)
        if name == "cond":
            return self._cond(eqn, values, scope)
        with _naming(f"{name} in layer {scope or '(none)'}"):
            if name in _CUSTOM_CALLS:
                rule = _custom_rule(eqn)
            elif all(isinstance(x, np.ndarray) for x in values) and name != "broadcast_in_dim":
                return self._fold(eqn, values)
            else:
                rule = ELEMENTWISE.get(name) or _OF_WHOLE.get(name)
                if rule is None:
                    raise Unsupported("TensorFlow 1.15 has no operation for it here")
            if name in _OF_WHOLE:
                values = [self.whole(x, v.aval) for x, v in zip(values, eqn.invars, strict=True)]
            with tf.name_scope(scope + "/" if scope else ""):
                outputs = rule(eqn, *(_finite(x, name) for x in values))
        outputs = list(outputs) if isinstance(outputs, list | tuple) else [outputs]
        for value, var in zip(outputs, eqn.outvars, strict=True):
            _require_like(value, var.aval, name)
        return outputs

    def _call(self, called, values, scope):
        """Emits the equations of an inner function."""
        jaxpr, consts = (called.jaxpr, called.consts) if hasattr(called, "consts") else (called, ())
        return self.run(jaxpr, consts, values, scope)

    def _scan(self, eqn, values, scope):
        """Unrolls a loop of known length."""
        params = eqn.params
        consts, carry = _scan_sizes(params)
        fixed, state = values[:consts], values[consts : consts + carry]
        sequences = [
            self.whole(x, v.aval)
            for x, v in zip(values[consts + carry :], eqn.invars[consts + carry :], strict=True)
        ]
        steps = [self._elements(x, params["length"]) for x in sequences]
        order = range(params["length"])[:: -1 if params["reverse"] else 1]
        made = {}
        for i in order:
            outputs = self._call(params["jaxpr"], [*fixed, *state, *(s[i] for s in steps)], scope)
            state, made[i] = outputs[:carry], outputs[carry:]
        inner = params["jaxpr"].out_avals[carry:]
        stacked = [
            tf.raw_ops.Pack(values=[self.whole(made[i][j], aval) for i in sorted(made)])
            for j, aval in enumerate(inner)
        ]
        return [*state, *stacked]

    @staticmethod
    def _elements(x, length):
        return list(x) if isinstance(x, np.ndarray) else tf.raw_ops.Unpack(value=x, num=length)

    def _cond(self, eqn, values, scope):
        """Emits both branches and selects the results of one; no operation has side effects."""
        which, *inputs = values
        branches = eqn.params["branches"]
        if isinstance(which, np.ndarray):
            return self._call(branches[int(which)], inputs, scope)
        with _naming(f"cond in layer {scope or '(none)'}"):
            if len(branches) != 2:
                raise Unsupported("a choice between more than two branches")
        no, yes = (
            [
                self.whole(x, v.aval)
                for x, v in zip(self._call(b, inputs, scope), eqn.outvars, strict=True)
            ]
            for b in branches
        )
        with tf.name_scope(scope + "/" if scope else ""):
            chosen = tf.raw_ops.NotEqual(x=which, y=np.zeros([], which.dtype.as_numpy_dtype))
            return [choose(chosen, a, b) for a, b in zip(yes, no, strict=True)]

    def _fold(self, eqn, values):
        """Evaluates an equation whose inputs are all constants."""
        whole = [self.whole(x, v.aval) for x, v in zip(values, eqn.invars, strict=True)]
        if not all(isinstance(x, np.ndarray) for x in whole) or not all(
            known(v.aval.shape) for v in eqn.outvars
        ):
            raise Unsupported("a constant as long as an unknown dimension")
        outputs = eqn.primitive.bind(*whole, **eqn.params)
        return [np.asarray(x) for x in (outputs if eqn.primitive.multiple_results else [outputs])]

    def whole(self, value: Value, aval: Any) -> Value:
        """Broadcasts a loose value to its full length in each dimension."""
        lengths = [1 if d == 1 else None for d in value.shape]
        times = [1 if a is None or d == 1 else d for a, d in zip(lengths, aval.shape, strict=True)]
        if all(known([t]) and t == 1 for t in times):
            return value
        if isinstance(value, np.ndarray) and known(times):
            return np.broadcast_to(value, aval.shape)
        return tf.raw_ops.Tile(input=value, multiples=self._lengths(times))

    def _lengths(self, dimensions):
        """Returns dimensions as an int32 vector; lengths of symbols come from an input."""
        if known(dimensions):
            return np.array(dimensions, np.int32)
        parts = []
        for d in dimensions:
            if known([d]):
                parts.append(np.int32(d))
                continue
            if str(d) not in self._symbols:
                raise Unsupported(f"the length {d}, which is not a dimension of an input")
            source, axis = self._symbols[str(d)]
            shape = tf.raw_ops.Shape(input=source)
            begin, end = np.array([axis], np.int32), np.array([axis + 1], np.int32)
            parts.append(
                tf.raw_ops.StridedSlice(
                    input=shape, begin=begin, end=end, strides=np.array([1], np.int32),
                    shrink_axis_mask=1,
                )
            )  # fmt: skip
        return tf.raw_ops.Pack(values=parts)


@contextmanager
def _naming(what: str) -> Iterator[None]:
    try:
        yield
    except Unsupported as error:
        raise UsageError(f"{what} cannot be exported as tf1: {error}") from error


def _custom_name(eqn):
    """Returns the name of a function with a custom derivative."""
    return eqn.params["call_jaxpr"].jaxpr.debug_info.func_name


def _custom_rule(eqn):
    function = _custom_name(eqn)
    if function not in CUSTOM:
        raise Unsupported(
            f"the function {function} has a custom derivative; allowed: {', '.join(CUSTOM)}"
        )
    return CUSTOM[function]


def _join(scope: str, stack: str) -> str:
    """Returns TensorFlow's name scope for JAX's: `WideResNet/Conv_0`."""
    inner = [re.sub(r"[^A-Za-z0-9_.-]", "_", part) for part in stack.split("/") if part]
    return "/".join([*filter(None, [scope]), *(part.lstrip("_-") or "x" for part in inner)])


def _finite(value: Value, name: str) -> Value:
    """Checks a constant that enters the graph, since NPUs refuse infinite ones."""
    if not isinstance(value, np.ndarray) or not np.issubdtype(value.dtype, np.floating):
        return value
    # max(x, -∞) is x: its rule drops the constant.
    if np.isinf(value).any() and not (name == "max" and np.all(value == -np.inf)):
        raise Unsupported("one of its constants is infinite, which NPUs refuse")
    return value


def _require_like(value: Value, aval: Any, name: str) -> None:
    """Checks that a rule's result has JAX's shape and type."""
    dtype = value.dtype if isinstance(value, np.ndarray) else value.dtype.as_numpy_dtype
    fits = len(value.shape) == len(aval.shape) and all(
        a is None or a == 1 or not known([d]) or a == d
        for a, d in zip(value.shape, aval.shape, strict=True)
    )
    assert np.dtype(dtype) == aval.dtype, (name, dtype, aval)
    assert fits, (name, value.shape, aval)


def _scan_sizes(params):
    """Returns the number of a scan's inputs that are constants, and that are its state."""
    if "ft_in" not in params:
        return params["num_consts"], params["num_carry"]
    consts, carry, _ = params["ft_in"].unpack()  # jax 0.12 and newer
    return len(list(consts.vals)), len(list(carry.vals))
