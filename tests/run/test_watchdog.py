import pytest

from ssljax.run import watchdog


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def dog_with(seconds, begun, done, *, step=0):
    """Returns a watchdog that saw calls of these durations, and steps begun and done by each."""
    clock = Clock()
    dog = watchdog.Watchdog(lambda line: None, step, clock)
    for spent, last, finished in zip(seconds, begun, done, strict=True):
        with dog.call(last, lambda last, finished=finished: finished):
            clock.now += spent
        clock.now += 1000.0  # an evaluation in between does not count
    return dog


def test_time_is_of_the_steps_that_were_done_in_it():
    """A stream's first two calls return before their steps are done; the last one waits for all."""
    dog = dog_with(
        [0.002, 0.002, 4.0, 4.0, 12.0], begun=[8, 9, 10, 11, 12], done=[7, 7, 8, 9, 12], step=7
    )
    assert list(dog._seconds) == pytest.approx([4.004, 4.0, 4.0])
    assert dog.median() == pytest.approx(4.0)


def test_the_first_call_which_compiles_is_not_counted():
    clock = Clock()
    dog = watchdog.Watchdog(lambda line: None, 0, clock)
    with dog.call(1, lambda last: last, measure=False):
        clock.now += 60.0
    assert dog.median() is None
    with dog.call(3, lambda last: last):
        clock.now += 4.0
    assert dog.median() == 2.0


def test_a_limit_comes_with_a_median_that_means_something():
    steps = range(1, 10)
    dog = dog_with([2.0] * 9, steps, steps)
    assert dog.limit(1) is None
    dog = dog_with([2.0] * 10, range(1, 11), range(1, 11))
    assert dog.limit(1) == pytest.approx(20.0)  # ten times the median
    assert dog.limit(3) == pytest.approx(60.0)
    dog = dog_with([0.002] * 10, range(1, 11), range(1, 11))
    assert dog.limit(1) == 10.0  # shorter pauses are not reported


def test_a_call_is_reported_while_it_still_runs(monkeypatch):
    monkeypatch.setattr(watchdog, "_SHORTEST", 0.0)
    dog = dog_with([0.001] * 10, range(1, 11), range(1, 11))
    lines = []

    class Timer:
        def __init__(self, seconds, function, arguments):
            assert seconds == pytest.approx(0.01)
            self.start = lambda: function(*arguments)

        def cancel(self):
            lines.append("cancelled")

    monkeypatch.setattr(watchdog.threading, "Timer", Timer)
    dog._report = lines.append
    with dog.call(11, lambda last: last):
        (line,) = lines
        assert line.startswith("watchdog: step 11 is not done after 0.0 s; the median is 0.001 s")
    assert lines[1:] == ["cancelled"]
