"""Trains a bundle, and asks it to stop after so many steps: `npu_interrupted.py BUNDLE OUT STEPS`.

In TensorFlow 1.15 on Python 3.7, and in the current one.
"""

import importlib.util
import os
import signal
import sys

bundle, output, steps = sys.argv[1:]
spec = importlib.util.spec_from_file_location("run", os.path.join(bundle, "run.py"))
run = importlib.util.module_from_spec(spec)
spec.loader.exec_module(run)


class Stop:
    """Asks for it when the loop has looked so many times."""

    left = int(steps)

    @property
    def number(self):
        self.left -= 1
        return None if self.left > 0 else signal.SIGTERM


options = run.parse(["--bundle", bundle, "--output", output, "--device=cpu", "--loss_scale=0"])
try:
    run.train(options, Stop())
except run.Interrupted as stop:
    print(stop)
