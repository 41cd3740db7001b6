"""Tests `metrics.jsonl`: damaged or missing rows are reported, never dropped silently."""

import json

import numpy as np
import pytest
from clu.metrics import Average

from ssljax.errors import UsageError
from ssljax.run import metrics
from ssljax.storage import checksums


@pytest.fixture
def run(tmp_path):
    """A run of eight steps, whose checkpoints of steps 4 and 8 record its rows."""
    log = metrics.MetricsLog(tmp_path, step=0)
    for step in (2, 4, 6, 8):
        log.write({"step": step, "loss/total": 1 / step, "guess/accuracy_masked": None})
        if step % 4 == 0:
            checkpoint(tmp_path, step, log.written())
    return tmp_path


def checkpoint(workdir, step, rows):
    partial = workdir / "checkpoints" / "partial"
    partial.mkdir(parents=True)
    checksums.commit(partial, partial.with_name(str(step)), rows)


def test_a_row_has_the_means_of_the_rarest_and_the_most_frequent_class():
    sums = {
        "loss/total": Average(np.float32(6), np.float32(4)),
        "guess/accuracy": Average(np.float32(0), np.float32(0)),
        "guess/classes": Average(np.array([5.0, 1, 3, 1]), np.float32(10)),
        "guess/class_accuracy": Average(np.array([1.0, 2, 0, 4]), np.array([4.0, 4, 0, 4])),
    }
    row = metrics.summarize(sums, np.array([2, 9, 4, 0]))  # class 3 has no label
    assert row["loss/total"] == 1.5
    assert row["guess/accuracy"] is None
    assert row["guess/accuracy_rarest"] == 0.25
    assert row["guess/accuracy_frequent"] == 0.5
    shares = np.array([0.5, 0.1, 0.3, 0.1])
    assert row["guess/class_entropy"] == pytest.approx(-np.sum(shares * np.log(shares)))
    assert set(row) == {
        "loss/total", "guess/accuracy", "guess/class_entropy", "guess/accuracy_rarest",
        "guess/accuracy_frequent",
    }  # fmt: skip
    # With equal label counts, the classes guessed least and most often are used.
    even = metrics.summarize(sums, np.array([2, 2, 2, 0]))
    assert (even["guess/accuracy_rarest"], even["guess/accuracy_frequent"]) == (0.5, 0.25)
    unknown = metrics.summarize(sums, np.array([3, 3, 1, 0]))
    assert unknown["guess/accuracy_rarest"] is None


def change(run, edit):
    path = run / "metrics.jsonl"
    path.write_bytes(edit(path.read_bytes()))


def without_lines(*numbers):
    return lambda content: b"".join(
        line for i, line in enumerate(content.splitlines(True), 1) if i not in numbers
    )


def test_flipped_bits_and_cuts_are_noticed(run):
    path = run / "metrics.jsonl"
    content, rows = path.read_bytes(), metrics.read_rows(path)
    assert [row["step"] for row in rows] == [2, 4, 6, 8]
    for i in range(0, len(content), 3):
        changed = bytearray(content)
        changed[i] ^= 1 << i % 8
        for damaged in (changed, content[:i]):
            path.write_bytes(damaged)
            with pytest.raises(UsageError, match=r"metrics.jsonl has (changed|lost rows) since"):
                metrics.read_rows(path)


@pytest.mark.parametrize("more", [b'{"step": 10, "loss/tot', b'{"step": 10}\n'])
def test_rows_after_the_checkpoint_are_as_they_were(more, run):
    change(run, lambda content: content + more)
    assert len(metrics.read_rows(run / "metrics.jsonl")) == 4 + more.endswith(b"\n")
    assert [row["step"] for row in metrics.MetricsLog(run, step=8).rows] == [2, 4, 6, 8]


@pytest.mark.parametrize("line", [b"{]", b'{"mine": 1}', b"5", b'{"step": 9, "a": "b"}', b"\xff"])
def test_a_line_that_is_no_row_is_named_and_the_others_can_be_had(line, run):
    change(run, lambda content: content + line + b"\n")
    with pytest.raises(UsageError, match=r"metrics.jsonl cannot be read in line 5 \("):
        metrics.read_rows(run / "metrics.jsonl")
    told = []
    assert len(metrics.read_rows(run / "metrics.jsonl", told.append)) == 4
    assert len(told) == 1
    metrics.MetricsLog(run, step=8)  # it comes after the checkpoint, and is written again


@pytest.mark.parametrize(
    ("edit", "what", "left"),
    [
        (without_lines(1, 2), "lost rows", [6, 8]),
        (without_lines(4), "lost rows", [2, 4, 6]),
        (lambda content: content.replace(b"0.25", b"0.26"), "changed", [2, 4, 6, 8]),
        (lambda content: content.replace(b'{"step": 4', b'["step": 4'), "changed", [2, 6, 8]),
        (lambda content: b"", "lost rows", []),
    ],
)
def test_a_damaged_log_is_gone_on_from_only_when_asked(edit, what, left, run, capsys):
    change(run, edit)
    before = (run / "metrics.jsonl").read_bytes()
    with pytest.raises(UsageError, match=rf"{what} since .* --config.checkpoint.fallback=true"):
        metrics.MetricsLog(run, step=8)
    assert (run / "metrics.jsonl").read_bytes() == before
    log = metrics.MetricsLog(run, step=8, fallback=True)
    assert [row["step"] for row in log.rows] == left
    assert f"metrics.jsonl has {what} since" in capsys.readouterr().out
    assert (run / "metrics.jsonl.damaged").read_bytes() == before
    log.write({"step": 10})
    checkpoint(run, 10, log.written())
    assert [row["step"] for row in metrics.read_rows(run / "metrics.jsonl")] == [*left, 10]


def test_going_on_from_an_earlier_checkpoint_compares_the_rows_before_it(run):
    (run / "checkpoints/8").rename(run / "checkpoints/8.damaged")
    change(run, without_lines(3))
    assert [row["step"] for row in metrics.MetricsLog(run, step=4).rows] == [2, 4]


def test_a_log_of_an_older_version_is_read_as_far_as_it_has_lines(run):
    (run / "checkpoints/8/manifest.json").write_text(json.dumps({"sha256": {}}))
    change(run, without_lines(1))
    assert len(metrics.read_rows(run / "metrics.jsonl")) == 3
    change(run, lambda content: b"{]\n5\n" + content)
    with pytest.raises(UsageError, match=r"cannot be read in line 1 .* and 1 others; restore it"):
        metrics.MetricsLog(run, step=8)
