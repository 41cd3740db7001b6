"""Files beside an exported model: its README, and a script with the commands for Ascend's ATC."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ssljax.export import preprocess
from ssljax.export.preprocess import Preprocess
from ssljax.storage.files import write_text
from ssljax.trained import Trained

_USE = {
    "saved_model": """\
    import tensorflow as tf
    serve = tf.saved_model.load("<this directory>").signatures["serving_default"]
    logits = serve(images=images)["logits"]

It holds one XlaCallModule for CPU, CUDA and TPU: TensorFlow 2.19 or newer runs it, and TensorFlow
Serving of such a version (as `<model name>/<version>/`).""",
    "tf1": """\
Placeholder `images:0`; outputs `logits:0` and `probabilities:0`. Plain operations of TensorFlow
1.15, for which `tf.import_graph_def` suffices:

    graph_def = tf.compat.v1.GraphDef.FromString(open("{first}", "rb").read())
    tf.import_graph_def(graph_def, name="")

For Ascend, `SOC=Ascend310P3 sh atc.sh` makes offline models (`.om`). ATC computes in half precision
by default; `atc.sh` asks for float32 (`must_keep_origin_dtype`; PRECISION=… for
another mode). Compare its logits with these graphs' on real images before relying on them: no
Ascend device was at hand when this was written.""",
    "onnx": """\
    import onnxruntime
    session = onnxruntime.InferenceSession("model.onnx")
    (logits,) = session.run(["logits"], {{"images": images}})""",
}


def readme(
    trained: Trained, format: str, taken: Preprocess, names: Sequence[str], verdict: str
) -> str:
    """Returns the README of an export."""
    height, width, channels = taken.image_shape
    scaled = "of the logits"
    if trained.temperature != 1:
        scaled += f" divided by the temperature {trained.temperature:.6g}, which calibrates them"
    use = _USE[format].format(first=names[0])
    classes = len(trained.class_names)
    config = trained.config
    return f"""\
# {config["model"]}, {format}

Step {trained.step} of a {config["method"]} run on `{config["dataset"]}`, {trained.weights} weights.
It computes in float32.

| | |
| --- | --- |
| input | `images`: {taken.dtype} `[N, {height}, {width}, {channels}]`, 0 to 255 (scaled inside) |
| outputs | `logits`, `probabilities`: float32 `[N, {classes}]`, as in `labels.txt` |

Probabilities are the softmax {scaled}.

{use}

## From an image to the input

{preprocess.section(taken)}
`images` are `np.stack([read(path), …])`. With ssljax installed, this command predicts a folder, a
file, a pattern or an `.npz` in the same way, and writes `predictions.csv`, `.npz` and `.html`:

    python -m ssljax.export.predict <this directory> <images> --output=<directory>

## Verification

`sha256sum --check SHA256SUMS` says whether a file has changed since it was written.

Compared with the JAX model (`parity.json`):

    {verdict.replace(chr(10), chr(10) + "    ")}
"""


def write_atc(path: Path, trained: Trained, paths: Mapping[int | None, Path]) -> None:
    """Writes a script with the ATC command for each graph.

    Its options are documented at https://www.hiascend.com/document, "ATC".
    """
    shape = ",".join(map(str, trained.image_shape))
    commands = []
    for size, graph in paths.items():
        batch = "${BATCH:-1}" if size is None else str(size)
        output = f"{graph.stem}_b{batch}" if size is None else graph.stem
        commands.append(
            f'atc --framework=3 --model={graph.name} --output="{output}" --soc_version="$SOC" \\\n'
            f'    --input_format=NHWC --input_shape="images:{batch},{shape}" \\\n'
            '    --out_nodes="logits:0;probabilities:0" --output_type=FP32 \\\n'
            '    --precision_mode="${PRECISION:-must_keep_origin_dtype}"\n'
        )
    usage = "SOC=<chip, such as Ascend310P3>" + (" BATCH=<size>" if None in paths else "")
    write_text(
        path,
        f"#!/bin/sh\n# {usage} sh atc.sh\n# Makes offline models (.om) for Ascend; float32 unless "
        'PRECISION says otherwise.\nset -eu\ncd "$(dirname "$0")"\n'
        ': "${SOC:?is not set: the chip, such as Ascend310P3}"\n' + "".join(commands),
    )
    path.chmod(0o755)
