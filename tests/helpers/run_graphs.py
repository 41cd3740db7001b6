"""Runs in TensorFlow 1.15, Python 3.7: `run_graphs.py DIR` runs each DIR/*.pb on DIR/*.npz.

Writes the value of the graph's node `y`, `logits` or `out/images` to DIR/*.npy.
"""

import os
import sys

import numpy as np
import tensorflow as tf

assert tf.__version__.startswith("1.15"), tf.__version__
directory = sys.argv[1]
for name in sorted(os.listdir(directory)):
    stem, kind = os.path.splitext(name)
    if kind != ".pb":
        continue
    path = os.path.join(directory, stem)
    graph_def = tf.compat.v1.GraphDef()
    with open(path + ".pb", "rb") as file:
        graph_def.ParseFromString(file.read())
    inputs = dict(np.load(path + ".npz"))
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graph_def, name="")
        names = [node.name for node in graph_def.node]
        output = next(n for n in ("logits", "y", "out/images") if n in names) + ":0"
        with tf.compat.v1.Session(graph=graph) as session:
            found = session.run(output, {key + ":0": value for key, value in inputs.items()})
    np.save(path + ".npy", found)
    print(stem)
