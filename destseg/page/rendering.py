"""Writes pages: each one HTML file that holds everything it shows.

`page.html` is what they have in common; `report.html` and `tables.html` extend it.
"""

import datetime
import html
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any

import destseg
from destseg.files import FilePath, write_whole
from destseg.packages import import_package


def write_page(path: FilePath, template: str, values: Mapping[str, Any]) -> None:
    """Fill a template with values and the time, and write it, whole or not at all.

    Args:
        path: the file.
        template: the name of its file in this folder.
        values: those that `destseg.inference.pages` or `destseg.bench.tables_page` makes.

    Raises:
        ImportError: jinja2 is missing; the message names the command that installs it.
        OSError: the file cannot be written.
    """
    jinja2 = import_package("jinja2")
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_read_template),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    now = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    text = environment.get_template(template).render(values, made=f"{now}, destseg {destseg.__version__}")
    # Names that are not UTF-8 cannot stand in a page.
    write_whole(path, lambda file: file.write(text.encode("utf-8", "replace")))


def _read_template(name: str) -> str:
    return resources.files("destseg.page").joinpath(name).read_text("utf-8")


def html_table(lines: Iterable[Sequence[str]]) -> str:
    """Return lines of cells as a table of HTML, for notebooks; the first cell of a line is its heading."""
    rows = "".join(
        f"<tr><th>{html.escape(first)}</th>"
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in others)
        + "</tr>"
        for first, *others in lines
    )
    return f"<table>{rows}</table>"
