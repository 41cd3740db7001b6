"""Measures seconds from `launch.py` to the first trained step, cold and warm.

    python -m benchmarks.startup --config=configs/fixmatch_digits.py [--config.<knob>=<value> …]

Cold: nothing of the program has been compiled before; warm: `config.compilation_cache` has it.
Prints both, and the time to import the modules of a run.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

LAUNCH = Path(__file__).parents[1] / "launch.py"
_IMPORTS = "from ssljax import recipe; from ssljax.run import loop"


def main() -> None:
    """Measures and prints."""
    with tempfile.TemporaryDirectory() as directory:
        flags = [*sys.argv[1:], f"--config.compilation_cache={directory}/programs"]
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", _IMPORTS], check=True, cwd=LAUNCH.parent)
        print(f"imports {time.perf_counter() - start:.1f} s")
        for name in ("cold", "warm"):
            seconds = first_step([*flags, f"--workdir={directory}/{name}"])
            print(f"{name}: the first step is done after {seconds:.1f} s", flush=True)


def first_step(flags: list[str]) -> float:
    """Returns the seconds until a run of two steps reports that the first one is done."""
    lengths = ["--config.num_steps=2", "--config.log_every=1", "--config.eval_every=2"]
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, str(LAUNCH), *flags, *lengths], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("step 1: loss"):
                seconds = time.perf_counter() - start
                process.terminate()
                process.communicate()
                return seconds
    raise RuntimeError(f"launch.py ended with {process.returncode} before its first step")


if __name__ == "__main__":
    main()
