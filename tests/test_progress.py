"""What people see while they wait."""

import io
import logging
import sys

import pytest

from destseg.progress import is_heard, is_terminal, say


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Strange:
    """A stream as windowed programs have it, without isatty."""


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize(
    "stream", [None, Strange(), closed(), io.StringIO()], ids=["none", "strange", "closed", "file"]
)
def test_what_is_no_terminal_gets_no_message(monkeypatch, stream):
    monkeypatch.setattr(sys, "stderr", stream)
    assert not is_terminal() and not is_heard()
    say("nobody hears it")
    assert not isinstance(stream, io.StringIO) or stream.closed or stream.getvalue() == ""


def test_a_terminal_gets_the_message_if_it_is_wanted(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    say("heard")
    say("not wanted", wanted=False)
    assert sys.stderr.getvalue() == "heard\n"


def test_the_log_gets_it_instead_where_it_is_listened_to(monkeypatch, caplog):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with caplog.at_level(logging.INFO, logger="destseg"):
        say("logged", wanted=False)
    assert caplog.messages == ["logged"] and sys.stderr.getvalue() == ""
