"""What people see while they wait: messages on a terminal, and the same in the log."""

import logging
import sys

logger = logging.getLogger("destseg")


def is_terminal() -> bool:
    """Whether standard error is a terminal: in a service it is None, and it may be closed, or anything."""
    try:
        return bool(sys.stderr.isatty())
    except (AttributeError, ValueError):
        return False


def is_heard(wanted: bool = True) -> bool:
    """Whether `say` reaches anybody."""
    return logger.isEnabledFor(logging.INFO) or (wanted and is_terminal())


def say(text: str, wanted: bool = True) -> None:
    """Log a message at level INFO, and print it if that is wanted and there is a person at a terminal."""
    if logger.isEnabledFor(logging.INFO):  # then it is not printed as well: it would appear twice
        logger.info(text)
    elif wanted and is_terminal():
        print(text, file=sys.stderr)
