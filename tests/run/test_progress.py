import time
from types import SimpleNamespace

import pytest

from ssljax.run import progress
from ssljax.training.stream import Stream


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def shown(clock):
    """The progress of 400 steps of 10 images, without a terminal."""
    experiment = SimpleNamespace(num_steps=400, images_per_step=10)
    return progress.ProgressBar(experiment, 0, None, clock)


def test_what_is_not_known_is_left_out(shown, clock, capsys):
    clock.now += 20.0
    shown.advance(1)  # the step that compiles
    shown.show({"step": 1, "loss/total": 2.5, **shown.rates()})
    shown.resume()
    clock.now += 2.0
    shown.advance(4)
    shown.show({"step": 5, "loss/total": 2.0, **shown.rates()}, "test accuracy 1 %", "seed=5, ")
    assert capsys.readouterr().out.splitlines() == [
        "step 1: loss 2.5000",
        "seed=5, step 5: test accuracy 1 %; loss 2.0000, 20 images/s, 198 s left",
    ]


def test_an_evaluation_does_not_count(shown, clock):
    shown.advance(1)
    shown.pause("evaluating")
    clock.now += 60.0
    shown.resume()
    clock.now += 1.0
    shown.advance(2)
    assert shown.rates()["images_per_second"] == 20.0


def test_a_line_comes_after_half_a_minute_of_silence(shown, clock, capsys):
    clock.now += 29.0
    shown.break_silence()
    assert capsys.readouterr().out == ""
    clock.now += 1.0
    shown.break_silence()
    shown.break_silence()  # a line has just been printed
    assert capsys.readouterr().out == "step 0 of 400, compiling\n"
    shown.advance(1)
    clock.now += 30.0
    shown.advance(3)
    shown.break_silence()
    assert capsys.readouterr().out == "step 4 of 400, 1 images/s, 3960 s left\n"
    shown.pause("evaluating")
    clock.now += 30.0
    shown.break_silence()
    assert capsys.readouterr().out == "step 4 of 400, evaluating\n"


def test_silence_is_looked_after_while_a_step_runs(shown, clock, monkeypatch, capsys):
    monkeypatch.setattr(progress, "_LOOK", 0.001)
    clock.now += 31.0
    with shown:
        end = time.monotonic() + 10.0
        while not (line := capsys.readouterr().out):
            assert time.monotonic() < end
            time.sleep(0.001)
    assert line == "step 0 of 400, compiling\n"


def test_images_per_second_are_of_steps_that_are_done(clock):
    """Of five steps that a stream has begun, three are complete."""
    feed = Stream(iter(()), lambda batch: batch)
    experiment = SimpleNamespace(num_steps=400, images_per_step=10)
    shown = progress.ProgressBar(experiment, 100, feed, clock)
    with feed:
        shown.advance(1)
        shown.advance(4)
        clock.now += 1.0
        assert shown.rates()["images_per_second"] is None
        feed.done += 3
        assert shown.rates() == {"images_per_second": 30.0, "data_wait": 0.0}


def test_a_stream_counts_the_steps_that_are_done():
    """Two may be running; they count once they have been waited for."""
    with Stream(iter(range(10)), lambda batch: batch) as stream:
        for expected in (0, 0, 1, 2):
            stream.next()
            stream.follow(0)
            # If the next batch is late, all previous steps are waited for.
            assert expected <= stream.done <= stream.done + len(stream._running)
        assert stream.done + len(stream._running) == 4
        stream.wait()
        assert stream.done == 4


def test_how_long_the_run_will_take_is_said_once_ten_steps_are_timed(shown, clock, capsys):
    shown.advance(1)
    for _ in range(30):
        clock.now += 3600.0
        shown.advance(1)
    shown.show({"step": 31, "loss/total": 1.0, **shown.rates()})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        "about 16.2 days for the remaining 389 steps (1 hours per step); see --config.num_steps"
    )
    assert len(lines) == 2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (39_744_000, "460 days"),
        (9000, "2.5 hours"),
        (754, "12.6 minutes"),
        (42.2, "42.2 seconds"),
        (0.0123, "0.012 seconds"),
    ],
)
def test_a_duration_is_in_the_unit_that_suits_it(seconds, text):
    assert progress.duration(seconds) == text
