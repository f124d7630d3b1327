"""Writes the report page: one HTML file that holds everything it shows."""

import html
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any

from destseg.files import FilePath, write_whole
from destseg.packages import import_package


def write_page(path: FilePath, values: Mapping[str, Any]) -> None:
    """Fill `report.html` with values and write it, whole or not at all.

    Args:
        path: the file.
        values: those that `destseg.inference.pages` makes.

    Raises:
        ImportError: jinja2 is missing; the message names the command that installs it.
        OSError: the file cannot be written.
    """
    jinja2 = import_package("jinja2")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = resources.files("destseg.page").joinpath("report.html").read_text("utf-8")
    text = environment.from_string(source).render(values)
    # Names that are not UTF-8 cannot stand in a page.
    write_whole(path, lambda file: file.write(text.encode("utf-8", "replace")))


def html_table(lines: Iterable[Sequence[str]]) -> str:
    """Return lines of cells as a table of HTML, for notebooks; the first cell of a line is its heading."""
    rows = "".join(
        f"<tr><th>{html.escape(first)}</th>"
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in others)
        + "</tr>"
        for first, *others in lines
    )
    return f"<table>{rows}</table>"
