"""Real TensorFlow 1.15.5 on Python 3.7, installed once from the package registry and kept."""

import fcntl
import functools
import os
import shutil
import subprocess
from pathlib import Path

import pytest

PACKAGES = ("tensorflow==1.15.5", "protobuf<3.21", "numpy<1.19")


@functools.cache
def python() -> str:
    """Returns an interpreter with TensorFlow 1.15; skips the test if none can be installed."""
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ssljax" / "tf1.15.5"
    home.mkdir(parents=True, exist_ok=True)
    found = home / "env" / "bin" / "python"
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        if not (home / "complete").exists():
            base = _python_3_7()
            if base is None:
                pytest.skip("no Python 3.7, on the PATH or in pyenv, for TensorFlow 1.15")
            shutil.rmtree(home / "env", ignore_errors=True)
            commands = [
                [base, "-m", "venv", str(home / "env")],
                [str(found), "-m", "pip", "install", "--quiet", *PACKAGES],
            ]
            for command in commands:
                made = subprocess.run(command, capture_output=True, text=True)
                if made.returncode:
                    pytest.skip(f"TensorFlow 1.15.5 cannot be installed: {made.stderr[-300:]}")
            (home / "complete").touch()
    return str(found)


def run(script: Path, *args: str) -> str:
    """Runs a script there and returns its output."""
    theirs = ("PYTHON", "XLA_FLAGS")  # it aborts on unknown flags
    environment = {k: v for k, v in os.environ.items() if not k.startswith(theirs)}
    environment |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    command = [python(), "-W", "ignore", str(script), *args]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def _python_3_7() -> str | None:
    roots = [os.environ.get("PYENV_ROOT"), Path.home() / ".pyenv"]
    candidates = [shutil.which("python3.7")]
    for root in filter(None, roots):
        candidates += sorted(map(str, Path(root).glob("versions/3.7.*/bin/python3.7")))
    for candidate in filter(None, candidates):
        # A pyenv shim exists even if the version is not selected.
        if subprocess.run([candidate, "-c", "import venv"], capture_output=True).returncode == 0:
            return candidate
    return None
