import time

from ssljax.run import watchdog


def test_a_call_is_reported_while_it_takes_ten_times_the_median(monkeypatch):
    monkeypatch.setattr(watchdog, "_SHORTEST", 0.0)
    lines = []
    dog = watchdog.Watchdog(lines.append)
    with dog.call(1, 1, measure=False):
        time.sleep(0.3)  # the compilation is not counted
    for step in range(2, 7):
        with dog.call(step, 2):
            time.sleep(0.04)
    assert 0.015 < dog.median() < 0.1
    assert lines == []
    with dog.call(7, 1):
        time.sleep(10 * dog.median() + 0.3)
        assert len(lines) == 1  # it is still running
    assert lines[0].startswith("watchdog: step 7 is not done after")


def test_no_line_for_short_pauses():
    lines = []
    dog = watchdog.Watchdog(lines.append)
    for step in range(3):
        with dog.call(step, 1):
            pass
    with dog.call(4, 1):
        time.sleep(0.2)  # far more than ten times the median
    assert lines == []
