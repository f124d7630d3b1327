"""The page of the tables in a real browser."""

import base64

import numpy as np
import pytest
from reading import check_readable, resize

from destseg.bench.tables_page import tables_values
from destseg.inference.report import COLUMNS
from destseg.page.rendering import write_page
from destseg.settings import PROTOCOLS

HOSTILE = 'a<b>"1"</b>&\'</script>'
CATEGORIES, METHODS, SEEDS = ("wood", "zipper", "x" * 60, HOSTILE), ("fast", "paper", "variant"), range(3)


def cell_result(category, method, seed):
    generator = np.random.default_rng([len(category), len(method), seed])
    about = {"category": category, "method": method, "seed": seed, "settings": {"preset": method}}
    if (category, method, seed) == ("zipper", "fast", 1):
        return about | {"error": f"ValueError: {'long/' * 100}{HOSTILE}\nand more"}
    reports = {name: {column: generator.uniform(0.6, 1) for column in COLUMNS} for name in PROTOCOLS}
    costs = {"fit_minutes": 12.3, "milliseconds": 45.6, "peak_bytes": 1.5e9}
    machine = {"device": "cpu", "threads": 2, "versions": {"destseg": "1", "torch": "2"}}
    return {**about, "reports": reports, **costs, **machine}


@pytest.fixture(scope="module")
def tables_page(tmp_path_factory):
    path = tmp_path_factory.mktemp("tables") / "tables.html"
    results = [
        cell_result(category, method, seed) for seed in SEEDS for category in CATEGORIES for method in METHODS
    ]
    command = f"destseg bench tables {'very/' * 60}mvtec --set 'steps=[3,4]'"
    write_page(path, "tables.html", tables_values(results, 40, command))
    return path


def test_the_page_of_the_tables_fits_is_readable_and_prints(browser, tables_page, width):
    resize(browser, width)
    browser.get(tables_page.as_uri())
    check_readable(browser, width)
    names = "return [...document.querySelectorAll('.group')].map((it) => it.textContent)"
    assert browser.execute_script(names) == [*CATEGORIES] * len(PROTOCOLS)
    plots = browser.execute_script(
        "return [...document.querySelectorAll('figure svg')].map((it) => [it.clientWidth, "
        "it.querySelectorAll('.seed').length, it.querySelectorAll('.mean').length])"
    )
    cells = len(CATEGORIES) * len(METHODS)
    assert [plot[1:] for plot in plots] == [[cells * len(SEEDS) - 1, cells]] * 3 * len(PROTOCOLS)
    assert all(0 < plot[0] <= width for plot in plots)
    script = "return [...document.querySelectorAll('.wide')].map((it) => it.scrollWidth <= it.clientWidth)"
    assert width < 1000 or all(browser.execute_script(script))  # the tables are seen whole on a desk
    first = "return document.querySelector('.wide .name').getBoundingClientRect().x"
    before = browser.execute_script(first)
    browser.execute_script("document.querySelector('.wide').scrollLeft = 200")
    assert browser.execute_script(first) == before  # names stay where they are
    printed = base64.b64decode(
        browser.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})["data"]
    )
    assert printed.startswith(b"%PDF")
    assert browser.get_log("browser") == []
