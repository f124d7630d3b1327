"""What people see while they wait: messages, bars, and the lines of the log."""

import io
import logging
import sys
import threading

import pytest

from destseg import progress
from destseg.cli import main
from destseg.progress import Bar, bar, is_heard, is_watched, say, write


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Notebook(io.StringIO):
    """A stream as notebooks have it: it says that it is no terminal."""


Notebook.__module__ = "ipykernel.iostream"


class Strange:
    """A stream as windowed programs have it, without isatty."""


class Failing(Terminal):
    """A terminal that goes away."""

    def write(self, text):
        raise OSError("the terminal is gone")


def closed(kind=io.StringIO):
    stream = kind()
    stream.close()
    return stream


unwatched = pytest.mark.parametrize(
    "stream",
    [None, Strange(), closed(), closed(Terminal), closed(Notebook), io.StringIO()],
    ids=["none", "strange", "closed", "closed terminal", "closed notebook", "file"],
)
watched = pytest.mark.parametrize("kind", [Terminal, Notebook])


@pytest.fixture
def clock(monkeypatch):
    """Seconds that the test sets."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@unwatched
def test_where_nobody_watches_nothing_is_shown(monkeypatch, stream):
    monkeypatch.setattr(sys, "stderr", stream)
    assert not is_watched() and not is_heard()
    say("nobody hears it")
    assert list(bar(range(3), "counting")) == [0, 1, 2]
    assert not isinstance(stream, io.StringIO) or stream.closed or stream.getvalue() == ""


@watched
def test_who_watches_gets_the_message_if_it_is_wanted(monkeypatch, kind):
    monkeypatch.setattr(sys, "stderr", kind())
    say("heard")
    say("not wanted", wanted=False)
    assert sys.stderr.getvalue() == "heard\n"


def test_the_log_gets_it_instead_where_it_is_listened_to(monkeypatch, caplog):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with caplog.at_level(logging.INFO, logger="destseg"):
        say("logged", wanted=False)
    assert caplog.messages == ["logged"] and sys.stderr.getvalue() == ""


@unwatched
def test_what_cannot_be_written_is_left_out(monkeypatch, capsys, stream):
    monkeypatch.setattr(sys, "stderr", stream)
    write("a line")
    assert capsys.readouterr().out == ""  # where standard error is None, print takes standard output
    assert not isinstance(stream, io.StringIO) or stream.closed or stream.getvalue() == "a line\n"


@watched
def test_a_bar_is_shown_to_who_watches_and_starts_no_thread(monkeypatch, kind):
    monkeypatch.setattr(sys, "stderr", kind())
    threads = threading.active_count()
    assert list(bar("abc", "spelling")) == ["a", "b", "c"]
    assert threading.active_count() == threads
    assert "spelling: 100%" in sys.stderr.getvalue() and "3/3" in sys.stderr.getvalue()


@watched
def test_an_unwanted_bar_is_not_shown(monkeypatch, kind):
    monkeypatch.setattr(sys, "stderr", kind())
    assert list(bar("abc", "spelling", wanted=False)) == ["a", "b", "c"]
    assert sys.stderr.getvalue() == ""


def test_a_bar_takes_its_total_from_the_items_or_the_caller_or_has_none(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    list(bar(iter("ab"), "told", 2))
    list(bar(iter("ab"), "unknown"))
    assert "told: 100%" in sys.stderr.getvalue() and "unknown: 2it" in sys.stderr.getvalue()


def test_a_bar_of_steps_shows_stage_and_loss(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with Bar("training", 4, 2) as shown:
        shown.describe("student", loss="0.5")
        shown.update(2)
    assert "student: 100%" in sys.stderr.getvalue() and "4/4" in sys.stderr.getvalue()
    assert "loss=0.5" in sys.stderr.getvalue()


@watched
def test_a_line_stands_above_the_bar_or_in_the_log(monkeypatch, caplog, kind):
    monkeypatch.setattr(sys, "stderr", kind())
    caplog.set_level(logging.INFO, logger="destseg.progress")
    with Bar("cells", 2) as shown:
        shown.say("the first is done")
        shown.update()
    assert "\rthe first is done\n" in sys.stderr.getvalue() and not caplog.messages
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with Bar("cells", 2) as shown:
        shown.say("the second is done")
    assert caplog.messages == ["the second is done"] and not sys.stderr.getvalue()


def test_a_bar_of_bytes_counts_them_in_larger_units(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with Bar("weights.pth", 3_000_000, unit="B") as shown:
        shown.update(3_000_000)
    assert "3.00M/3.00M" in sys.stderr.getvalue()


def test_a_terminal_that_goes_away_ends_no_work(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Failing())
    assert list(bar(range(3), "counting")) == [0, 1, 2]
    say("nobody hears it")
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    for item in bar(range(3), "counting"):
        if item == 1:
            stream.close()


def test_a_bar_that_is_left_early_is_closed(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    items = bar(range(3), "counting", leave=False)
    next(items)
    items.close()
    assert sys.stderr.getvalue().endswith("\r")  # wiped


@unwatched
def test_the_log_tells_every_minute_how_far_the_work_is(monkeypatch, caplog, clock, stream):
    monkeypatch.setattr(sys, "stderr", stream)
    with caplog.at_level(logging.INFO, logger="destseg"):
        for _ in bar(range(1000), "calibrating"):
            clock[0] += 1
    assert len(caplog.messages) == 1000 // 60
    assert caplog.messages[0] == "calibrating: 60 of 1000, about 16 min left"
    assert caplog.messages[-1] == "calibrating: 960 of 1000, about 1 min left"
    assert {record.levelno for record in caplog.records} == {logging.INFO}


def test_lines_of_the_log_know_work_done_before_stages_bytes_and_no_total(monkeypatch, caplog, clock):
    monkeypatch.setattr(sys, "stderr", None)
    with caplog.at_level(logging.INFO, logger="destseg"):
        with Bar("training", 2000, 1000) as shown:
            clock[0] += 60
            shown.describe("student", loss="0.5")
            shown.update(5)
        with Bar("weights.pth", 90_000_000, unit="B") as shown:
            clock[0] += 60
            shown.update(30_000_000)
        with Bar("streaming") as shown:
            clock[0] += 60
            shown.update(7)
    assert caplog.messages == [
        "student: 1005 of 2000, about 3.3 h left",
        "weights.pth: 30 of 90 MB, about 2 min left",
        "streaming: 7 so far",
    ]


def test_where_a_bar_is_shown_the_log_gets_no_lines(monkeypatch, caplog, clock):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with caplog.at_level(logging.INFO, logger="destseg"), Bar("training", 10) as shown:
        clock[0] += 60
        shown.update()
    assert caplog.messages == []


@pytest.mark.parametrize(("switch", "level"), [([], logging.INFO), (["--no-progress"], logging.NOTSET)])
def test_the_command_line_listens_unless_it_is_told_not_to(monkeypatch, capsys, switch, level):
    monkeypatch.setattr(progress.line_logger, "level", logging.NOTSET)
    assert main(["predict", "missing.destseg", "a.png", *switch]) == 1
    assert progress.line_logger.level == level
