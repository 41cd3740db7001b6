import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from helpers.command import command, refused
from helpers.tiny import tiny_config
from ssljax import overrides, sweep
from ssljax.errors import Interrupted, RunError, UsageError
from ssljax.run import metrics
from ssljax.storage import lock

ROOT = Path(__file__).parents[1]
LAUNCH = [sys.executable, "launch.py"]
TINY = [
    "--config=configs/fixmatch_digits.py", "--config.model_args.filters=4",
    "--config.model_args.scales=1", "--config.batch_size=8", "--config.uratio=2",
    "--config.num_steps=12", "--config.log_every=2", "--config.eval_every=4",
]  # fmt: skip


def test_a_grid_has_every_combination_and_the_last_knob_varies_fastest():
    points = overrides.grid("seed=1,2; config.method_args.threshold=0.9,0.95")
    assert points == [
        {"seed": "1", "method_args.threshold": "0.9"},
        {"seed": "1", "method_args.threshold": "0.95"},
        {"seed": "2", "method_args.threshold": "0.9"},
        {"seed": "2", "method_args.threshold": "0.95"},
    ]
    assert overrides.names(points)[1] == "seed=1+method_args.threshold=0.95"


def test_commas_in_brackets_belong_to_the_value():
    points = overrides.grid("optimizer.decay_epochs=(10,20),(15,25)")
    assert points == overrides.listed(
        [{"optimizer.decay_epochs": f"({x})"} for x in ("10,20", "15,25")]
    )


def test_a_directory_s_name_is_one_path_component():
    (name,) = overrides.names(overrides.grid("dataset=folder:/data/my pets.1@40-0"))
    assert name == "dataset=folder__data_my_pets.1@40-0"


def test_spaces_and_quotes_are_understood():
    spaced = overrides.grid(" seed = 1, 2 ; config.lr = 3 ")
    assert spaced == [{"seed": "1", "lr": "3"}, {"seed": "2", "lr": "3"}]
    quoted = overrides.grid("dataset='folder:/a,b;c.1@4-0',\"digits.1@4-0\",folder:/bob's,x")
    data = ["folder:/a,b;c.1@4-0", "digits.1@4-0", "folder:/bob's", "x"]
    assert quoted == [{"dataset": x} for x in data]
    tuples = overrides.grid("health.stop_on=('collapse','mask_rate'),()")
    assert tuples == [{"health.stop_on": "('collapse','mask_rate')"}, {"health.stop_on": "()"}]
    for text in ("seed=(1,2", "seed='1,2", "seed=[(1)"):
        with pytest.raises(UsageError, match="--sweep: .* lacks"):
            overrides.grid(text)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return None", "get_sweep() returned NoneType 'None'; allowed: a list of"),
        ("return {'seed': 1}", "get_sweep() returned dict"),
        ("return [1]", "get_sweep() returned int '1'"),
        ("yield 3", "get_sweep() returned generator"),
        ("return nope", "own.py, line 2: NameError: name 'nope' is not defined"),
    ],
)
def test_what_is_wrong_with_a_sweep_of_a_config_is_said(body, message, tmp_path):
    (tmp_path / "own.py").write_text(f"def get_sweep():\n    {body}\n")
    with pytest.raises(UsageError) as caught:
        overrides.own_grid(str(tmp_path / "own.py"))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_knobs_of_a_config_s_sweep_can_be_as_on_the_command_line():
    assert overrides.listed([{"config.seed": 1, "lr ": 0.5}]) == [{"seed": "1", "lr": "0.5"}]


def test_a_directory_s_name_that_no_system_takes_is_refused():
    with pytest.raises(UsageError, match="whose name has 308 bytes; allowed: up to 255"):
        overrides.names([{"dataset": "é" * 150}])


@pytest.mark.parametrize("text", ["", "seed", "=1", "seed=1;", "seed=1;seed=2"])
def test_another_form_is_refused(text):
    with pytest.raises(UsageError, match="allowed: <knob>=<value>"):
        overrides.grid(text)


def test_points_that_share_a_directory_are_refused():
    with pytest.raises(UsageError, match="'seed=1' twice"):
        overrides.names(overrides.grid("seed=1,2,1"))
    with pytest.raises(UsageError, match="no points"):
        overrides.names([])


def test_only_the_results_of_just_that_run_are_finished(tmp_path):
    config = tiny_config().to_dict()

    def write(step, **saved):
        (tmp_path / "config.json").write_text(json.dumps(config | saved))
        (tmp_path / "results.json").write_text(json.dumps({"step": step}))

    assert not sweep.is_finished(tmp_path, config)
    write(12)
    assert sweep.is_finished(tmp_path, config)
    assert sweep.is_finished(tmp_path, config | {"log_every": 7})
    assert not sweep.is_finished(tmp_path, config | {"num_steps": 13})  # is continued
    assert not sweep.is_finished(tmp_path, config | {"seed": 5})  # is rejected
    write(12, num_steps=13)  # extended, and stopped before its end
    assert not sweep.is_finished(tmp_path, config | {"num_steps": 13})
    # These knobs determine others, which `config.json` records.
    by_epochs = config | {"num_epochs": 2.0, "per_worker_batch_size": 4}
    write(10, num_steps=10, num_epochs=2.0, batch_size=16)
    assert sweep.is_finished(tmp_path, by_epochs)
    assert not sweep.is_finished(tmp_path, by_epochs | {"num_epochs": 3.0})


def python(program):
    return [sys.executable, "-c", program]


def test_a_failure_does_not_keep_the_other_runs_from_running(tmp_path):
    commands = {
        "bad": python("raise SystemExit(2)"),
        "good": python(f"open({str(tmp_path / 'ran')!r}, 'w')"),
    }
    with pytest.raises(RunError, match="1 of 2 runs failed: bad"):
        sweep.run(commands)
    assert (tmp_path / "ran").exists()


def test_two_sweeps_do_not_share_a_directory(tmp_path, capsys):
    args = [*TINY, "--sweep=seed=1,2", f"--workdir={tmp_path / 'runs'}"]
    with lock.held_directory(tmp_path / "runs", ""):
        assert "runs is in use: another sweep runs there" in refused(capsys, *args)
        code, output, _ = command(capsys, *args, "--sweep_list")
        assert code == 0, output
    assert not list((tmp_path / "runs").iterdir())


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_reaches_the_running_process_once_and_ends_the_sweep(stop, tmp_path):
    got, started = tmp_path / "got", tmp_path / "started"
    program = f"""
import os, signal, sys, time
def handler(signum, frame):
    open({str(got)!r}, "a").write(f"{{signum}}\\n")
    time.sleep(0.3)  # a second signal would come now
    sys.exit(128 + signum)
for s in (signal.SIGINT, signal.SIGHUP): signal.signal(s, handler)
open({str(started)!r} + "?", "w").write(str(os.getpgrp()))
os.rename({str(started)!r} + "?", {str(started)!r})
time.sleep(60)
"""

    def send():
        while not started.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), stop)

    before = signal.getsignal(stop)
    thread = threading.Thread(target=send)
    thread.start()
    commands = {"first": python(program), "second": python(f"open({str(tmp_path / 'ran')!r}, 'w')")}
    with pytest.raises(Interrupted, match="the sweep stopped in first") as caught:
        sweep.run(commands)
    thread.join()
    assert caught.value.signum == stop
    assert int(started.read_text()) != os.getpgrp()  # a terminal's Ctrl-C reaches only this process
    assert got.read_text() == f"{stop.value}\n"
    assert not (tmp_path / "ran").exists()
    assert signal.getsignal(stop) == before


def launch(*args, **options):
    return subprocess.run([*LAUNCH, *args], cwd=ROOT, capture_output=True, text=True, **options)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--sweep=seeds=1,2"], "config.seeds does not exist; the nearest knob is config.seed"),
        (["--sweep=seed=1,x"], "--config.seed=x"),
        (["--sweep=config"], "needs a function get_sweep()"),
        (["--sweep=seed=1,2", "--sweep_index=2"], "--sweep_index is 2; allowed: from 0 to 1"),
        (["--sweep_list"], "--sweep is missing"),
        (["--sweep=seed=1", "--mode=data"], "--sweep is given with --mode=data"),
    ],
)
def test_bad_input_gets_one_line_before_anything_runs(args, message, tmp_path, capsys):
    assert message in refused(capsys, *TINY, *args, f"--workdir={tmp_path / 'runs'}")
    assert not (tmp_path / "runs").exists()


def test_a_directory_that_holds_a_run_is_refused(tmp_path, capsys):
    (tmp_path / "config.json").write_text("{}")
    line = refused(capsys, *TINY, "--sweep=seed=1,2", f"--workdir={tmp_path}")
    assert "holds a run; several runs need another directory" in line


def test_a_config_file_can_have_a_sweep_of_its_own(tmp_path, capsys):
    config = tmp_path / "own.py"
    config.write_text(
        "from configs import fixmatch_digits\n\n"
        "get_config = fixmatch_digits.get_config\n\n"
        "def get_sweep():\n"
        "    return [dict(batch_size=b, seed=b + 1) for b in (4, 8)]\n"
    )
    args = [f"--config={config}", "--sweep", "config", "--workdir", str(tmp_path), "--sweep_list"]
    code, output, errors = command(capsys, *args)
    assert code == 0, errors
    first, printed, second, _ = output.splitlines()
    assert (first, second) == ("0  batch_size=4+seed=5", "1  batch_size=8+seed=9")
    assert printed.endswith(
        f"-m ssljax --config={config} --config.batch_size=4 --config.seed=5 "
        f"--workdir={tmp_path}/batch_size=4+seed=5"
    )


def rows_of(workdir):
    rows = metrics.read_rows(workdir / "metrics.jsonl")
    return [{k: v for k, v in row.items() if k != "images_per_second"} for row in rows]


@pytest.mark.slow
def test_an_interrupted_sweep_goes_on_without_repeating_work(tmp_path):
    """The sweep of the issue: 3 seeds and 2 thresholds."""
    sweep_flag = "--sweep=seed=1,2,3;method_args.threshold=0.9,0.95"
    args = [*TINY, "--config.num_steps=80", sweep_flag, f"--workdir={tmp_path / 'sweep'}"]
    child = subprocess.Popen([*LAUNCH, *args], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    third = tmp_path / "sweep" / "seed=2+method_args.threshold=0.9"
    while len(metrics.read_rows(third / "metrics.jsonl")) < 3:
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(signal.SIGTERM)
    assert child.wait() == 128 + signal.SIGTERM
    runs = sorted((tmp_path / "sweep").iterdir())
    assert len(runs) == 3
    before = {path: path.stat().st_mtime_ns for run in runs[:2] for path in run.iterdir()}
    assert not (third / "results.json").exists()

    again = launch(*args)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("is finished") == 2
    assert again.stdout.count("resuming") == 1
    assert f"resuming {third} after step" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(list((tmp_path / "sweep").glob("*/results.json"))) == 6

    alone = launch(*args[:-1], f"--workdir={tmp_path / 'alone'}", "--sweep_index=2")
    assert alone.returncode == 0, alone.stderr
    (run,) = (tmp_path / "alone").iterdir()
    assert run.name == third.name
    assert rows_of(run) == rows_of(third)
    nothing = launch(*args)
    assert nothing.stdout.count("is finished") == 6
    assert "step" not in nothing.stdout
