"""Tests TensorBoard files after a kill, without TensorFlow."""

import struct

import pytest

from ssljax.run import events, metrics


def record(step, payload=b"\x2a\x03abc"):
    """Returns an event as TensorFlow writes it; its checksums are not read."""
    event = b"\x09" + struct.pack("<d", 1.5) + (b"\x10" + varint(step) if step else b"") + payload
    return struct.pack("<QI", len(event), 0) + event + bytes(4)


def varint(value):
    low, rest = value & 127, value >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


VERSION = record(0, b"\x1a\x0dbrain.Event:2")


@pytest.mark.parametrize(
    ("steps", "after", "left"),
    [
        ([0, 2, 4, 300], 4, [0, 2, 4]),
        ([2, 4, 4, 6], 6, [2, 4, 4, 6]),
        ([0, 1, 2], 0, None),  # nothing was saved: the run restarts, with its pictures
        ([6, 8], 4, None),
    ],
)
def test_what_comes_again_is_dropped(steps, after, left, tmp_path):
    path = tmp_path / "events.out.tfevents.1.host"
    path.write_bytes(VERSION + b"".join(map(record, steps)) + record(2)[:-3])  # truncated
    events.drop_after(tmp_path, after)
    if left is None:
        assert not path.exists()
    else:
        assert path.read_bytes() == VERSION + b"".join(map(record, left))


def test_a_log_that_goes_on_drops_later_rows_everywhere(tmp_path):
    workdir = tmp_path / "run [1]"
    workdir.mkdir()
    path = workdir / "events.out.tfevents.1.host"
    path.write_bytes(VERSION + record(2) + record(4))
    (workdir / "metrics.jsonl").write_text('{"step": 2}\n{"step": 4}\n')
    with metrics.MetricsLog(workdir, step=2) as log:
        log.write({"step": 4, "loss/total": 1.0})
    assert [row["step"] for row in metrics.read_rows(workdir / "metrics.jsonl")] == [2, 4]
    assert path.read_bytes() == VERSION + record(2)
