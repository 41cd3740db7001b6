import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from helpers.command import command, refused
from ssljax import cli

ROOT = Path(__file__).parents[1]
TINY = [
    "--config=configs/supervised_digits.py", "--config.model_args.filters=4",
    "--config.model_args.scales=1", "--config.batch_size=8", "--config.num_steps=4",
    "--config.log_every=2", "--config.eval_every=2",
]  # fmt: skip


def launch(*args, **options):
    return subprocess.run(
        [sys.executable, "launch.py", *args], cwd=ROOT, capture_output=True, text=True, **options
    )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["--config=configs/fixmatch_digits.py", "--config.method_args.treshold=0.9"],
            "config.method_args.treshold does not exist; the nearest knob is "
            "config.method_args.threshold",
        ),
        (["--config=configs/fixmatch_digits.py", "--config.batch_size=x"], "--config.batch_size=x"),
        (["--config=configs/fixmatch_digit.py"], "configs/fixmatch_digit.py is neither"),
        (["--config=configs/fixmatch_digits.py", "--config.uratio=0"], "config.uratio is 0"),
        ([], "--config is missing"),
        (["--konfig=x"], "konfig"),
        (["--mode=eval"], "--workdir is missing"),
        (["--mode=eval", "--workdir=nowhere"], "nowhere/config.json cannot be read"),
        (["--mode=evaluate"], "evaluate"),
        (["--mode=augment"], "--config is missing"),
        (["--mode=augment", "--config=configs/fixmatch_digits.py", "--count=0"], "--count"),
    ],
)
def test_bad_input_gets_one_line_and_exit_code_2(args, message, tmp_path, capsys):
    if "--mode=eval" not in args:
        args = [*args, f"--workdir={tmp_path / 'run'}"]
    assert message in refused(capsys, *args)
    assert not (tmp_path / "run").exists()


def test_launch_py_ends_with_the_exit_code_of_the_command():
    result = launch("--mode=eval", "--workdir=nowhere")
    assert result.returncode == 2
    assert result.stderr.startswith("error: nowhere/config.json cannot be read")
    assert result.stderr.count("\n") == 1


@pytest.mark.slow
def test_train_and_eval_print_the_same_figures(tmp_path, capsys):
    trained = launch(*TINY, f"--workdir={tmp_path}")
    assert trained.returncode == 0, trained.stderr
    *_, last_scores, headline = [line for line in trained.stdout.splitlines() if "accuracy" in line]
    assert headline.startswith("headline: test accuracy ")
    assert trained.stdout.splitlines()[-1] == headline
    assert list(tmp_path.glob("events.out.tfevents.*"))  # TensorBoard files
    assert [line for line in trained.stderr.splitlines() if line] == []  # ours alone: there is none
    _, evaluated, _ = command(capsys, "--mode=eval", f"--workdir={tmp_path}")
    scores, again = evaluated.splitlines()
    assert last_scores.startswith(f"{scores}; loss ")
    assert again == headline


def test_augment_writes_a_contact_sheet_beside_the_run_directory(tmp_path, capsys):
    workdir = f"--workdir={tmp_path / 'run'}"
    code, output, errors = command(capsys, *TINY, "--mode=augment", "--count=3", workdir)
    assert code == 0, errors
    assert "run_augment.png: 3 images" in output
    assert [path.name for path in tmp_path.iterdir()] == ["run_augment.png"]
    width, height = Image.open(tmp_path / "run_augment.png").size
    assert height == 16 + (3 + 7) * (48 + 4)  # one row per image and one per distortion
    assert width == 96 + 10 * (48 + 4)


@pytest.mark.slow  # faults/test_stops.py trains without it, too
def test_training_works_without_tensorflow(tmp_path):
    program = (
        "import sys; sys.modules['tensorflow'] = None; from ssljax import cli; "
        "cli.main(sys.argv[1:])"
    )
    command = [
        sys.executable, "-c", program, *TINY, "--config.method_args.view=strong",
        f"--workdir={tmp_path}",
    ]  # fmt: skip
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "note: TensorFlow is not installed" in result.stdout
    assert json.loads((tmp_path / "results.json").read_text())["step"] == 4
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["method_args"] == {"view": "strong"}
    assert not list(tmp_path.glob("events.out.*"))


def test_the_loop_does_not_import_tensorflow():
    program = "import ssljax.run.loop, sys; assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_mode_data_shows_the_data_and_trains_nothing(tmp_path, capsys):
    code, output, errors = command(
        capsys, "--mode=data", "--config=configs/mixmatch_digits.py", f"--workdir={tmp_path}"
    )
    assert code == 0, errors
    lines = [line.split() for line in output.splitlines()]
    assert ["total", "40", "1,297", "100", "360"] in lines
    split = json.loads((tmp_path / "split.json").read_text())
    assert f"split hash: {split['hash']}" in output
    assert sorted(p.name for p in tmp_path.iterdir()) == ["labelled.png", "split.json"]
    other = "--config.dataset=digits.2@80-50"  # the file takes precedence
    split_file = f"--config.split_file={tmp_path}/split.json"
    code, _, errors = command(capsys, *TINY, other, split_file, f"--workdir={tmp_path}/run")
    assert code == 0, errors
    assert json.loads((tmp_path / "run/split.json").read_text()) == split
    line = refused(capsys, "--mode=data", *TINY, f"--workdir={tmp_path}/run")
    assert "holds a run" in line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (PermissionError(13, "Permission denied", "/data/x.npz"), "/data/x.npz: Permission denied"),
        (OSError(28, "No space left on device"), "a file cannot be written: the disk is full"),
        (OSError(27, "File too large"), "File too large"),
    ],
)
def test_what_the_system_refuses_is_one_line(error, line, capsys, monkeypatch):
    def refuse(parsed):
        raise error

    monkeypatch.setitem(cli._RUN, "recipes", refuse)
    assert command(capsys, "--mode=recipes") == (1, "", f"error: {line}\n")
