"""Trains a bundle twice: `npu_interrupted.py BUNDLE WHOLE PARTED STEPS`.

WHOLE is trained to the end; PARTED is told to stop after the given number of steps. Runs in
TensorFlow 1.15 on Python 3.7, and in the current one.
"""

import importlib.util
import os
import signal
import sys

bundle, whole, parted, steps = sys.argv[1:]
spec = importlib.util.spec_from_file_location("run", os.path.join(bundle, "run.py"))
run = importlib.util.module_from_spec(spec)
spec.loader.exec_module(run)


class Stop:
    """Requests a stop when the loop has checked a given number of times."""

    def __init__(self, steps):
        self.left = steps

    @property
    def number(self):
        self.left -= 1
        return None if self.left > 0 else signal.SIGTERM


def train(output, steps):
    flags = ["--bundle", bundle, "--output", output, "--device=cpu", "--loss_scale=0"]
    run.train(run.parse(flags), Stop(steps))


train(whole, 10**6)
try:
    train(parted, int(steps))
except run.Interrupted as stop:
    print(stop)
