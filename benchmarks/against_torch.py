"""Compares our training step with a PyTorch peer's, alternating between two processes.

    python -m benchmarks.against_torch --peer="<its python> <torch_ssl.py>" --method=fixmatch

Both train the same network on random 32×32 images with the same batch. The peer is a script that
prints "… images/s" and has flags of these names. Prints the ratio of each pair, because machine
speeds drift.
"""

import argparse
import json
import re
import shlex
import statistics
import subprocess
import sys


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--peer", required=True, help="its command")
    parser.add_argument("--theirs", default="", help="more of its flags, such as --channels-last")
    parser.add_argument("--ours", default="", help="more flags of benchmarks.train")
    parser.add_argument("--method", choices=["fixmatch", "mixmatch"], default="fixmatch")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--filters", type=int, default=32)
    parser.add_argument("--repeat", type=int, default=4)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--turns", type=int, default=3)
    args = parser.parse_args()
    ours = [
        *(sys.executable, "-m", "benchmarks.train", "--json", "--images=5000"),
        f"--config=configs/{args.method}_cifar10.py",
        f"--config.batch_size={args.batch}",
        f"--config.model_args.filters={args.filters}",
        f"--config.model_args.repeat={args.repeat}",
        f"--steps={args.steps}",
        *shlex.split(args.ours),
    ]
    theirs = [
        *shlex.split(args.peer),
        *(f"--{name}={getattr(args, name)}" for name in ("method", "batch", "filters", "repeat")),
        f"--steps={args.steps}",
        *shlex.split(args.theirs),
    ]
    ratios = []
    for turn in range(args.turns):
        found = json.loads(_last_line(ours))
        ours_s, theirs_s = found["images_per_second"], _images_per_second(_last_line(theirs))
        ratios.append(ours_s / theirs_s)
        if turn == 0:
            print(f"{found['hardware']}; {' '.join(theirs[2:])}")
        print(f"ours {ours_s:.1f} images/s, theirs {theirs_s:.1f}: {ratios[-1]:.2f}", flush=True)
    print(f"median ratio {statistics.median(ratios):.2f}")


def _last_line(command: list[str]) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.splitlines()[-1]


def _images_per_second(line: str) -> float:
    match = re.search(r"([\d.]+) images/s", line)
    if match is None:
        raise ValueError(f"the peer printed {line!r}, without images/s")
    return float(match[1])


if __name__ == "__main__":
    main()
