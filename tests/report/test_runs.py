"""Tests run directories in any state, and other files: each is named, and the rest is shown."""

import base64
import contextlib
import json
import os
import re
import types

import numpy as np
import pytest

from helpers.run_directories import make, write
from ssljax import cli
from ssljax.report import curves, pictures, report, runs
from ssljax.report import groups as grouping


def environment(**changes):
    start = {"step": 0, "versions": {"jax": "1"}, "devices": "1 × cpu", "machine": "x"} | changes
    return json.dumps({"starts": [{k: v for k, v in start.items() if v is not None}]}).encode()


def arrays(path, **changes):
    with np.load(path) as file:
        np.savez(path, **(dict(file) | changes))


NESTED = b"[" * 500 + b"]" * 500
ODD = {
    "failure.txt": [b"\xff\xfe bad", b"caf\xed\xb3\xa9"],
    "config.json": [b"[]", b"[" * 100_000, b'{"a": 3}',
                    b'{"method": "x"}', b'{"method": 1, "dataset": 2}',
                    b'{"method": "x", "dataset": "y.1@4-0", "num_steps": "many"}',
                    b'{"method": "x", "method_args": 3, "dataset": "y", "num_steps": 3}',
                    b'{"method": "x", "dataset": "y", "num_steps": 3, "a": ' + NESTED + b"}"],
    "metrics.jsonl": [b"[]\n", b"{}\n", b"5\n", b"null\n", b'{"mine": 1}\n', b"\xff\n",
                      b'{"step": "3"}\n', b'{"step": 3, "loss/total": "low"}\n', NESTED + b"\n"],
    "data.json": [b"[]", b'{"class_names": [1, null]}', b'{"class_names": 3}', b"{"],
    "split.json": [b"null", b'{"labeled": 5}'],
    "environment.json": [b'{"starts": [5]}', b'{"starts": 5}', b'{"starts": [{"step": 1}]}', b"[]",
                         environment(versions=3), environment(machine=None), environment(step="x"),
                         environment(versions={"jax": [1]})],
    "predictions.npz": [b"", b"PK"],
}  # fmt: skip


def test_a_damaged_run_takes_no_other_with_it(tmp_path, monkeypatch):
    # Without figures a page takes milliseconds; test_figures.py has the figures.
    monkeypatch.setattr(curves, "curves", lambda groups: {})
    monkeypatch.setattr(pictures, "of_group", lambda group, number: [])
    make(tmp_path / "runs/good", seed=1, evaluations=3)
    bad = make(tmp_path / "runs/bad", seed=2, evaluations=3)
    for name, contents in ODD.items():
        before = (bad / name).read_bytes() if (bad / name).exists() else b""
        for content in contents:
            (bad / name).write_bytes(content)
            text = report.write([tmp_path / "runs"], tmp_path / "out")
            assert re.search("^fixmatch  digits", text, re.MULTILINE), (name, content[:40])
            told = [line for line in text.splitlines() if line.startswith("note: bad: ")]
            assert told or content == b'{"labeled": 5}' or name == "data.json", (name, content[:40])
        (bad / name).write_bytes(before) if before else (bad / name).unlink()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(labels=np.full(200, -1)), "labels is from -1 to -1"),
        (dict(labels=np.full(200, 10**9)), "labels is from 1000000000 to"),
        (dict(predicted=np.zeros(7, int)), "predicted is int64 [7]"),
        (dict(predicted=np.zeros(200)), "predicted is float64"),
        (dict(labels=np.zeros(0, int)), "labels is int64 [0]"),
        (dict(confidence=np.full(200, np.nan)), "confidence is not from 0 to 1"),
        (dict(mistakes=np.full(5, 10**6)), "mistakes are not among the evaluated images"),
        (dict(mistake_images=np.zeros((5, 8, 8, 7), np.uint8)), "mistake_images is uint8"),
    ],
)
def test_predictions_of_another_form_are_left_out(tmp_path, changes, said):
    run = make(tmp_path / "run", evaluations=1)
    arrays(run / "predictions.npz", **changes)
    found = runs.read(run, "run")
    assert found.predictions is None
    assert [note for note in found.notes if said in note], found.notes


def test_numbers_that_are_none_are_no_figures(tmp_path):
    run = make(tmp_path / "run", evaluations=3)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 40, "test/accuracy_ema": NaN, "loss/total": 1e999}\n')
    found = runs.read(run, "run")
    assert found.rows[-1] == {"step": 40, "test/accuracy_ema": None, "loss/total": None}
    assert len(grouping.evaluations(found)) == 3


@pytest.mark.parametrize("value", [None, "absent"])
def test_a_run_without_evaluations_has_a_row_without_figures(tmp_path, value, undrawn):
    run = make(tmp_path / "run", evaluations=2)
    rows = [{"step": step, "loss/total": 1.0, "test/accuracy_ema": value} for step in (10, 20)]
    for row in rows:
        if value == "absent":
            del row["test/accuracy_ema"]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = report.write([run], tmp_path / "out", oracle=True)
    assert text.splitlines()[1].split() == ["fixmatch", "digits", "40", "1"]


def test_files_of_one_s_own_above_the_runs_hide_none(tmp_path):
    make(tmp_path / "1", seed=1)
    make(tmp_path / "deep/er/2", seed=2)
    for name in ("results.json", "metrics.jsonl", "config.json", "deep/config.json"):
        (tmp_path / name).write_text('{"note": "mine"}')
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "1" / "below").mkdir()
    (tmp_path / "1/below/results.json").write_text("{}")  # not searched, as it is in a run
    assert runs.find([tmp_path]) == [tmp_path / "1", tmp_path / "deep/er/2"]


def test_nothing_outside_a_run_directory_is_shown(tmp_path, undrawn):
    (tmp_path / "secret").write_text("the key")
    run = make(tmp_path / "run", evaluations=1)
    for name in ("failure.txt", "config.json", "augment.png", "labelled.png"):
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(tmp_path / "secret")
    text = report.write([run], tmp_path / "out")
    page = (tmp_path / "out/report.html").read_text()
    assert "the key" not in page + text
    assert base64.b64encode(b"the key").decode() not in page
    assert "failure.txt cannot be read (ValueError: it is a link out of the run directory)" in text


def test_text_of_a_run_is_printable_and_in_one_line(tmp_path):
    run = make(tmp_path / "ru\x1bn", dataset="folder:/a\nb.1@40-100")
    (run / "failure.txt").write_text("RunError: \x1b[2J\nTraceback\n")
    write(run / "data.json", {"class_names": ["a\tb", "caf\udce9"] + ["c"] * 8})
    found = runs.read(run, run.name)
    assert (found.name, found.config["dataset"]) == ("ru\\x1bn", "folder:/a\\nb.1@40-100")
    assert found.failure == "RunError: \\x1b[2J Traceback"
    assert found.class_names[:2] == ("a\\tb", "caf\\xe9")
    assert all(note.isprintable() for note in found.notes)


def test_following_waits_for_the_first_run_and_bears_files_that_come_and_go(
    tmp_path, undrawn, monkeypatch, capsys
):
    place, looks = tmp_path / "runs", []

    def sleep(seconds):
        looks.append(seconds)
        if len(looks) == 2:
            make(place / "a", evaluations=1)
        if len(looks) == 4:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def scandir(directory):
        """Lists a file that is deleted before it is read."""
        (directory / "failure.txt").touch()
        with os.scandir(directory) as found:
            entries = list(found)
        (directory / "failure.txt").unlink()
        yield entries

    monkeypatch.setattr(report.time, "sleep", sleep)
    monkeypatch.setattr(report, "os", types.SimpleNamespace(scandir=scandir))
    args = ["--mode=report", "--follow", f"--workdir={place}", f"--output={tmp_path / 'out'}"]
    assert cli.main(args) == 0
    printed = capsys.readouterr().out
    assert printed.count("no run yet") == 1
    assert printed.count("fixmatch") == 1
    assert (tmp_path / "out/report.html").exists()


def test_following_nothing_ends_without_a_report(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(report.time, "sleep", lambda seconds: exec("raise KeyboardInterrupt"))
    assert cli.main(["--mode=report", "--follow", f"--workdir={tmp_path}"]) == 0
    assert "wrote" not in capsys.readouterr().out
