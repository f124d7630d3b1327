"""The command `destseg`: finds the verb, runs it, and reports an error in one line.

Each verb has a module with HELP, EXAMPLE, `add_arguments(parser)` and `run(options)`, which takes the verb's
arguments and returns the exit status. Help imports neither torch nor numpy.
"""

import argparse
import io
import logging
import sys
from collections.abc import Sequence

import destseg
from destseg.cli import bench, calibrate, demo, evaluate, export, fit, info, predict
from destseg.cli.arguments import UsageError, add_verbs
from destseg.progress import is_watched, line_logger, printable, write

VERBS = {
    "demo": demo,
    "fit": fit,
    "predict": predict,
    "evaluate": evaluate,
    "calibrate": calibrate,
    "export": export,
    "bench": bench,
    "info": info,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    0; 1 if it failed; 2 for wrong usage, with which argparse exits, too; 130 if it was interrupted by Ctrl-C.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # so that no file's name is one that cannot be printed
        sys.stdout.reconfigure(errors="backslashreplace")
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("destseg: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    if not is_watched():  # results do not depend on kernels: only people hear that they are missing
        logging.getLogger("destseg.ops").setLevel(logging.ERROR)
    options = parser().parse_args(arguments)
    verb = vars(options).pop("verb")
    line_logger.setLevel(logging.INFO if vars(options).get("progress") else logging.NOTSET)
    try:
        return VERBS[verb].run(options)
    except BrokenPipeError:  # the reader has seen enough, see `destseg.cli.output.show`
        return 1
    except UsageError as error:
        write(printable(f"destseg {verb}: {error}", but=""))
        return 2
    except (ValueError, OSError, RuntimeError, TypeError, ImportError) as error:
        write(printable(f"destseg {verb}: {error}", but=""))
    except MemoryError:
        write(f"destseg {verb}: there is not enough memory")
    except KeyboardInterrupt as interruption:  # with what the verb has to say about it
        write(": ".join([f"destseg {verb}", "interrupted", *map(str, interruption.args)]))
        return 130  # as shells call it
    return 1


class _OneLine(logging.Formatter):
    """Writes each message in one line, control characters escaped."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return printable(super().formatMessage(record), but="")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command `destseg`; its options hold the verb's name in `verb`."""
    top = argparse.ArgumentParser("destseg", description=destseg.__doc__)
    top.add_argument("--version", action="version", version=f"destseg {destseg.__version__}")
    add_verbs(top, "verb", VERBS)
    return top
