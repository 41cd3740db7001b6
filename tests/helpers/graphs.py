"""Runs and checks TensorFlow 1 graphs."""

import json
from pathlib import Path

import tensorflow as tf

OPS_OF_1_15 = json.loads((Path(__file__).parent / "tf115_ops.json").read_text())


def run(graph_def, arrays, outputs=("y",)):
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graph_def, name="")
        with tf.compat.v1.Session(graph=graph) as session:
            feed = {f"{name}:0": x for name, x in arrays.items()}
            return session.run([f"{name}:0" for name in outputs], feed)


def require_1_15(graph_def):
    for node in graph_def.node:
        assert node.op in OPS_OF_1_15, node.op
        assert set(node.attr) <= set(OPS_OF_1_15[node.op]), (node.op, list(node.attr))
        assert not node.device
    assert graph_def.versions.producer == 134
    assert not graph_def.library.function
