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
from destseg.progress import is_watched, line_logger, write

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
    """Run one command and return 0, or 1 if it failed, or 2 for wrong usage; argparse exits with 2, too."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # so that no file's name is one that cannot be printed
        sys.stdout.reconfigure(errors="backslashreplace")
    logging.basicConfig(format="destseg: %(message)s", level=logging.WARNING)
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
        write(f"destseg {verb}: {error}")
        return 2
    except (ValueError, OSError, RuntimeError, TypeError, ImportError) as error:
        write(f"destseg {verb}: {error}")
    except MemoryError:
        write(f"destseg {verb}: there is not enough memory")
    except KeyboardInterrupt as interruption:  # with what the verb has to say about it
        write(": ".join([f"destseg {verb}", "interrupted", *map(str, interruption.args)]))
    return 1


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command `destseg`; its options hold the verb's name in `verb`."""
    top = argparse.ArgumentParser("destseg", description=destseg.__doc__)
    top.add_argument("--version", action="version", version=f"destseg {destseg.__version__}")
    add_verbs(top, "verb", VERBS)
    return top
