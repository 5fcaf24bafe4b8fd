"""Progress where there is no terminal: a line now and then, with the time that is left."""

import pytest

from whyprompt import _progress


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(_progress.time, "monotonic", lambda: now[0])
    return now


def test_the_time_left_is_that_of_this_runs_own_pace(clock, capsys):
    """A quarter was there before: it says nothing of how fast the rest is."""
    with _progress.show_progress("study") as report:
        report(0, 0, "loading")
        report(25, 100, "arm a")
        for done in (40, 55, 70):
            clock[0] += 30.0
            report(done, 100, "arm a")
        clock[0] += 60.0
        report(100, 100, "done")
    assert capsys.readouterr().err.splitlines() == [
        "study: loading",
        "study: arm a 25/100",
        "study: arm a 40/100, about 2 min left",
        "study: arm a 55/100, about 2 min left",
        "study: arm a 70/100, about 60 s left",
        "study: done 100/100",
    ]


def test_work_of_another_size_begins_anew_and_a_time_of_its_own_is_left_alone(clock, capsys):
    with _progress.show_progress("study") as report:
        report(0, 10, "items")
        clock[0] += 100.0
        report(10, 10, "items")
        report(0, 50, "arm a")
        clock[0] += 11.0
        report(25, 50, "arm a")
        clock[0] += 11.0
        report(30, 50, "asking, 3 USD spent, 9 s left")
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "study: arm a 25/50, about 11 s left",
        "study: asking, 3 USD spent, 9 s left 30/50",
    ]
