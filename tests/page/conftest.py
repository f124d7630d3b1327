"""A browser, and a report of made-up scores and maps, with a gallery, which its page shows."""

import shutil
import warnings

import numpy as np
import pytest

from destseg.inference.calibration import Calibration
from destseg.inference.report import Report, Row
from destseg.metrics.accumulator import Accumulator
from destseg.metrics.plots import plots
from destseg.page.gallery import Gallery

WIDTHS = (400, 1600)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PICTURES, SIZE = 40, (48, 64)
HOSTILE = 'it\'s <b>"1"</b> & </script>'  # the folder of one kind of defect


@pytest.fixture(scope="session")
def browser():
    """A browser without a window."""
    found, driver = next(filter(None, map(shutil.which, BROWSERS)), None), shutil.which("chromedriver")
    try:
        from selenium import webdriver
    except ImportError:
        webdriver = None
    if not (found and driver and webdriver):
        text = "PAGES ARE NOT TESTED: chromium, chromium-driver (chromedriver) and selenium are needed"
        warnings.warn(text, stacklevel=1)
        pytest.skip(text)
    options = webdriver.ChromeOptions()
    options.binary_location = found
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    window = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    window.set_script_timeout(60)
    yield window
    window.quit()


@pytest.fixture(params=WIDTHS)
def width(request):
    return request.param


@pytest.fixture(scope="session")
def found():
    """The anomaly maps of the report's pictures by their names, (h, w) float32. Not to be changed."""
    generator = np.random.default_rng(7)
    maps = {}
    for k in range(PICTURES):
        defect = ("good", "good", "scratch", HOSTILE)[k % 4]
        heat = generator.uniform(0, 0.05, SIZE).astype(np.float32)
        if defect != "good":
            heat[10:20, 20:30] += generator.uniform(0, 0.3)
        maps[f"test/{defect}/{k:02}.png"] = heat
    return maps


@pytest.fixture(scope="session")
def report(found):
    """Not to be changed."""
    generator = np.random.default_rng(8)
    calibration = Calibration(
        tuple(generator.uniform(0.03, 0.06, 30)), tuple(generator.uniform(0.02, 0.05, 30)), 0.1
    )
    gallery, accumulator, rows = Gallery(calibration.pixel_threshold, PICTURES), Accumulator(), []
    for name, heat in found.items():
        defect, score = (
            name.removeprefix("test/").rpartition("/")[0],
            float(np.sort(heat.ravel())[-20:].mean()),
        )
        truth = np.zeros(SIZE, bool)
        truth[10:20, 20:30] = defect != "good"
        accumulator.update([heat], [truth], [score])
        gallery.add(
            name, f"/parts/{name}", generator.integers(0, 256, (*SIZE, 3), dtype=np.uint8), heat, truth
        )
        rows.append(Row(name, defect, score, score > calibration.threshold))
    metrics, curves = accumulator.compute(), accumulator.curves()
    return Report(
        **vars(metrics),
        protocol="full",
        threshold=calibration.threshold,
        defects={"scratch": metrics, HOSTILE: metrics},
        rows=tuple(rows),
        promised_rate=calibration.promised_rate,
        curves=plots(curves, accumulator.image_scores, accumulator.image_labels),
        calibration=calibration,
        facts={"promise": calibration.promise()},
        gallery=gallery,
    )


@pytest.fixture(scope="session")
def page(report, tmp_path_factory):
    """The file of its page."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    report.to_html(path, "my part.destseg")
    return path
