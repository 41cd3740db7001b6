"""Runs steps of a bundle's runner on given inputs: `npu_steps.py BUNDLE IN OUT`.

Runs in TensorFlow 1.15 on Python 3.7, and in the current one. Each IN/*.npz is a run. It has
`<step>/in/…` for each step, and optionally `loss_scale`, as the flag, and `start` and `incr_every`
of a dynamic one. The file of the same name in OUT has, for each step, the loss, metrics and
gradients, `<step>/…`, and all variables after it, `variable/…`.
"""

import importlib.util
import os
import sys

import numpy as np

bundle, feeds_of, results_of = sys.argv[1:]
spec = importlib.util.spec_from_file_location("run", os.path.join(bundle, "run.py"))
run = importlib.util.module_from_spec(spec)
spec.loader.exec_module(run)
manifest = run.read_manifest(bundle)


def found_in(feeds):
    steps = 1 + max(int(name.split("/")[0]) for name in feeds if "/" in name)
    loss_scale = float(feeds.get("loss_scale", -1))

    def dynamic_scale():
        return run.DynamicScale(float(feeds["start"]), incr_every=int(feeds["incr_every"]))

    dynamic = dynamic_scale if "start" in feeds else run.DynamicScale
    model = run.Model(bundle, manifest, loss_scale, "cpu", dynamic)
    out = {}
    with run.tf1.Session(graph=model.graph) as session:
        session.run(model.initialize)
        with model.graph.as_default():
            everything = {v.op.name: v for v in run.tf1.global_variables()}
        for step in range(steps):
            given = {model.inputs[name]: feeds["%d/%s" % (step, name)] for name in model.inputs}
            given[model.lr] = run.learning_rate(step, **manifest["schedule"])
            fetched = [model.train, model.loss, model.metrics, model.gradients]
            _, loss, metrics, gradients = session.run(fetched, given)
            found = {"loss": loss}
            for name, (total, count) in metrics.items():
                found["metric/%s/total" % name], found["metric/%s/count" % name] = total, count
            found.update(("gradient/" + name, value) for name, value in gradients.items())
            found.update(("variable/" + n, v) for n, v in session.run(everything).items())
            out.update(("%d/%s" % (step, name), value) for name, value in found.items())
    return out


for name in sorted(os.listdir(feeds_of)):
    with np.load(os.path.join(feeds_of, name)) as arrays:
        feeds = {key: arrays[key] for key in arrays.files}
    np.savez(os.path.join(results_of, name), **found_in(feeds))
