"""Tests the command line in this process: invalid input is rejected before any computation."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from helpers.command import command, refused
from helpers.run_directories import make
from ssljax import cli, parts
from ssljax.augment import contact_sheet
from ssljax.report import report
from ssljax.storage import flock

DIGITS = "--config=supervised_digits"


@pytest.fixture
def uncomputed(monkeypatch):
    """Prevents loading and training."""
    monkeypatch.setattr(parts, "load_data", lambda *args, **options: pytest.fail("data are read"))


def test_a_recipe_can_follow_a_space(capsys):
    code, output, _ = command(capsys, "--mode=recipes", "--config", "fixmatch_digits")
    assert code == 0
    assert "method = 'fixmatch'" in output


@pytest.mark.parametrize(
    "args",
    [
        ("--mode=eval", "--workdir=~/d"),
        ("--mode=report", "--workdir=~/d"),
        ("--mode=report", "--workdir=nowhere,~/d", "--output=~/out"),
        ("--mode=export", "--format=tf1", "--workdir=~/d", "--output=~/out"),
        ("--mode=import_npu", "--bundle=~/d", "--workdir=~/new"),
        ("--mode=recipes", "--config=~/d.py"),
    ],
)
def test_a_tilde_is_the_home_directory(args, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "nowhere", evaluations=1)
    (tmp_path / "d.py").mkdir()
    line = refused(capsys, *args)
    assert f"{tmp_path}/d" in line or "~/d.py is neither" in line
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize("place", ["/proc/nowhere/d", "file", "file/d"])
@pytest.mark.parametrize(
    "args",
    [
        (DIGITS, "--workdir={}"),
        (DIGITS, "--workdir={}", "--config.num_seeds=2"),
        (DIGITS, "--workdir={}", "--sweep=seed=1,2"),
        ("--mode=data", DIGITS, "--workdir={}"),
        ("--mode=augment", DIGITS, "--workdir={}/x"),
        ("--mode=report", "--workdir=run", "--output={}"),
        ("--mode=export", "--format=tf1", "--workdir=run", "--output={}/x"),
        ("--mode=export", "--format=npu_bundle", DIGITS, "--output={}/x"),
        ("--mode=import_npu", "--bundle=run", "--workdir={}"),
        ("--mode=predict", "--workdir=run", "--images=run", "--output={}/x"),
        ("--mode=label_next", DIGITS, "--budget=2", "--output={}/x"),
        ("--mode=label_errors", "--workdir=run", "--output={}/x"),
        ("--mode=add_labels", DIGITS, "--labels=file", "--output={}/x"),
        ("--mode=compile", DIGITS, "--topology=v5e:2x4", "--output={}/x"),
    ],
)
def test_a_place_where_nothing_can_be_made_is_refused(
    args, place, tmp_path, capsys, monkeypatch, uncomputed
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    make(tmp_path / "run", evaluations=1)
    flag = next(arg for arg in args if "{}" in arg).partition("=")[0]
    line = refused(capsys, *[arg.format(place) for arg in args])
    assert line.startswith((f"error: {flag} ", "error: workdir "))
    assert "cannot be made" in line
    assert {path.name for path in tmp_path.iterdir()} == {"file", "run"}


@pytest.mark.parametrize("output", [".", "..", "/"])
def test_an_export_does_not_replace_the_current_folder(output, tmp_path, capsys, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    line = refused(
        capsys, "--mode=export", "--format=tf1", "--workdir=..", f"--output={output}", "--overwrite"
    )
    assert "contains the current directory" in line


def test_views_of_the_current_folder_lie_beside_it(tmp_path, capsys, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(contact_sheet, "draw", lambda *args: np.zeros((4, 4, 3), np.uint8))
    args = ("--mode=augment", DIGITS, "--count=1", "--workdir=.")
    code, _, _ = command(capsys, *args)
    assert code == 0
    assert (tmp_path / "here_augment.png").exists()


def test_a_directory_with_a_comma_is_one(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(report, "write", lambda paths, output, **options: f"{paths} {output}")
    place = tmp_path / "a,b"
    place.mkdir()
    assert f"{[place]} {place}\n" in command(capsys, "--mode=report", f"--workdir={place}")[1]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(13, "Permission denied", "/x/y"), "error: /x/y: Permission denied"),
        (MemoryError("Unable to allocate 9 TiB"), "the memory is full (Unable to allocate 9 TiB)"),
        (MemoryError(), "the memory is full (MemoryError)"),
    ],
)
def test_what_the_system_refuses_is_one_line(error, said, capsys, monkeypatch):
    def fail(command):
        raise error

    monkeypatch.setitem(cli._RUN, "recipes", fail)
    code, _, errors = command(capsys, "--mode=recipes")
    assert code == 1
    assert said in errors
    assert errors.count("\n") == 1


def test_a_message_is_one_line_without_control_characters(capsys):
    line = refused(capsys, "--mode=eval", "--workdir=a\x1b[2J\nb")
    assert "a\\x1b[2J\\nb" in line


def test_a_system_without_file_locks_is_named(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(flock, "fcntl", None)
    line = refused(capsys, DIGITS, f"--workdir={tmp_path}/run")
    assert "Windows" in line
    assert not (tmp_path / "run").exists()


def test_a_backend_of_a_notebook_that_is_not_here_draws_all_the_same():
    environment = {**os.environ, "MPLBACKEND": "module://no.such_backend"}
    program = "import os; from ssljax import drawing; print(os.environ['MPLBACKEND'])"
    result = subprocess.run(
        [sys.executable, "-c", program],
        env=environment, cwd=Path(__file__).parents[1], capture_output=True, text=True,
    )  # fmt: skip
    assert result.stdout == "module://no.such_backend\n", result.stderr
