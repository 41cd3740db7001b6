"""Exports to ONNX through jax2onnx, for ONNX Runtime and any batch size."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp
import jax2onnx
import numpy as np
import onnx
import onnxruntime

from ssljax.errors import UsageError
from ssljax.export.artefact import Run
from ssljax.trained import OUTPUTS, Trained


def require_usable() -> None:
    """Rejects a jax2onnx that is too old for this JAX.

    Raises:
      UsageError: it is too old.
    """
    one = jax.ShapeDtypeStruct((1,), jnp.float32)
    try:
        jax2onnx.to_onnx(jax.jit(lambda x: x + 1), [one])
    except Exception as error:  # the type depends on what JAX has removed
        raise UsageError(
            f"--format=onnx: jax2onnx {version('jax2onnx')} does not work with jax "
            f"{jax.__version__}; allowed: an older jax, such as that of constraints.txt"
        ) from error


def require_opset(opset: int) -> None:
    """Rejects an opset that the installed `onnx` does not support.

    Raises:
      UsageError: the opset is too new.
    """
    if opset > (newest := onnx.defs.onnx_opset_version()):
        raise UsageError(f"--opset is {opset}; allowed: up to {newest}, of onnx {onnx.__version__}")


def write(trained: Trained, path: Path, *, input_dtype: str, opset: int) -> None:
    """Writes a model with the input `images` and the outputs `logits` and `probabilities`.

    Raises:
      UsageError: jax2onnx or the ONNX checker rejects it.
    """
    serve = trained.serve(portable=True)

    def positional(images: jax.Array) -> tuple[jax.Array, ...]:
        outputs = serve(trained.variables, images)
        return tuple(outputs[name] for name in OUTPUTS)

    batch, *_ = jax.export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct((batch, *trained.image_shape), jnp.dtype(input_dtype))
    # Traced first: from layers and means, jax2onnx would make operations missing in older opsets.
    primitives = jax.extend.core.jaxpr_as_fun(jax.make_jaxpr(positional)(images))
    try:
        model = jax2onnx.to_onnx(
            primitives,
            [images],
            model_name="ssljax",
            opset=opset,
            input_names=["images"],
            output_names=list(OUTPUTS),
        )
        _pool_images(model.graph)
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # jax2onnx raises many types
        reason = " ".join(str(error).split())[:300]
        raise UsageError(f"--opset={opset}: no valid model can be written: {reason}") from error
    onnx.save(model, str(path))


def _pool_images(graph: Any) -> None:
    """Replaces max pooling by pooling over height and width of `[N, C, H, W]`.

    jax2onnx pools over all four dimensions of `[1, 1, N, H, W, C]`, which ONNX Runtime does not
    support.
    """
    made_by = {name: node for node in graph.node for name in node.output}
    for pool in [node for node in graph.node if node.op_type == "MaxPool"]:
        lists = {a.name: list(a.ints) for a in pool.attribute if a.ints}
        if len(lists["kernel_shape"]) != 4:
            continue
        inner = made_by[pool.input[0]]
        before = made_by[inner.input[0]]
        (after,) = [node for node in graph.node if pool.output[0] in node.input]
        pads = lists.pop("pads", [0] * 8)
        lists = {name: values[1:3] for name, values in lists.items()}
        lists["pads"] = pads[1:3] + pads[5:7]
        del pool.attribute[:]
        pool.attribute.extend(onnx.helper.make_attribute(*item) for item in lists.items())
        pool.input[0] = before.output[0]
        graph.node.remove(inner)
        for node, perm in ((before, (0, 3, 1, 2)), (after, (0, 2, 3, 1))):
            node.op_type = "Transpose"
            del node.input[1:]
            node.attribute.append(onnx.helper.make_attribute("perm", perm))
        _forget_shapes(graph, (before.output[0], inner.output[0], pool.output[0]))
    used = {name for node in graph.node for name in node.input}
    for constant in [x for x in graph.initializer if x.name not in used]:
        graph.initializer.remove(constant)
        _forget_shapes(graph, (constant.name,))


def _forget_shapes(graph, names):
    for info in [info for info in graph.value_info if info.name in names]:
        graph.value_info.remove(info)


def runner(path: Path) -> Run:
    """Returns a function that runs a model with ONNX Runtime on the CPU.

    Raises:
      UsageError: ONNX Runtime cannot run the model, e.g. because it does not know the opset.
    """
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # many unrelated classes
        reason = " ".join(str(error).split())[:300]
        raise UsageError(f"ONNX Runtime cannot run the model: {reason}; try --opset=17") from error

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(OUTPUTS, session.run(OUTPUTS, {"images": images}), strict=True))

    return run
