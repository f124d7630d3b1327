"""The report page in a real browser: Chromium, where the system has it."""

import base64
import re
import time

import numpy as np
import pytest
from reading import check_readable, resize

from destseg.cli.arguments import read_lists
from destseg.inference.report import Row
from destseg.ops.components import EXTENT, mask_of

SIZE = (48, 64)  # of the maps


@pytest.fixture
def opened(browser, page, width):
    """The browser with the page just opened, at each width; at the end nothing was wrong."""
    resize(browser, width)
    browser.get(page.as_uri())
    browser.execute_script("localStorage.clear()")
    browser.get(page.as_uri())
    settle(browser)
    yield browser
    assert browser.get_log("browser") == []


def settle(browser):
    """Wait until the page has drawn what changed, and all pictures that it wants."""
    browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
    end = time.monotonic() + 60
    while browser.execute_script("return rows.some((row) => row.layer === 'loading')"):
        assert time.monotonic() < end
        time.sleep(0.02)


def enter(browser, name, value):
    """Give a field or a slider a value as a person does."""
    kind = "change" if name in ("defect", "verdict") else "input"
    script = "const it = $(arguments[0]); it.value = arguments[1]; it.dispatchEvent(new Event(arguments[2]));"
    browser.execute_script(script, name, value, kind)
    settle(browser)


def press(browser, *keys):
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser).send_keys(*keys).perform()
    settle(browser)


def cards(browser):
    """The name and the verdict of each picture in the gallery, in order."""
    script = (
        "return [...gallery.children].map((card) => [card.row.name, card.row.badge.textContent.slice(2)])"
    )
    return [tuple(found) for found in browser.execute_script(script)]


def verdict(row: Row, threshold):
    wrong = (row.score > threshold) == (row.defect == "good")
    return (
        ("false alarm" if wrong else "passed") if row.defect == "good" else ("missed" if wrong else "found")
    )


def margin(row, threshold):
    """How far a score lies on the right side of the threshold; below 0 on the wrong one."""
    return np.log(row.score / threshold) * (-1 if row.defect == "good" else 1)


def test_counts_verdicts_and_order_are_those_of_python(opened, report):
    scores = np.sort([row.score for row in report.rows])
    slider = "return Number($('exact').value)"
    thresholds = [report.threshold, *np.quantile(scores, [0.1, 0.9]), *scores[[15, 25]]]
    for place, wanted in enumerate([*thresholds, 300]):
        enter(opened, "slider" if wanted == 300 else "exact", str(wanted))
        threshold = opened.execute_script(slider) if wanted == 300 else wanted
        good = [row for row in report.rows if row.defect == "good"]
        bad = [row for row in report.rows if row.defect != "good"]
        alarms, missed = (
            sum(row.score > threshold for row in good),
            sum(row.score <= threshold for row in bad),
        )
        text = opened.execute_script("return $('counts').textContent")
        assert f": {alarms} of {len(good)} (" in text and f"missed: {missed} of {len(bad)} (" in text
        if place == 0:
            assert alarms == report.false_alarms.flagged and alarms / len(good) == report.flagged("good")
        ordered = sorted(report.rows, key=lambda row: margin(row, threshold))
        assert cards(opened) == [(row.name, verdict(row, threshold)) for row in ordered]
    assert 0 < threshold < 1 and threshold not in thresholds  # where the slider stood


def test_the_rate_and_the_command_are_those_of_the_calibration(opened, report):
    attainable = report.calibration.attainable()
    for wanted in (3, 17, 29):
        threshold, rate, pixel_threshold = attainable[wanted]
        enter(opened, "exact", str(threshold + 1e-9))
        text, command = opened.execute_script("return [$('rate').textContent, $('command').textContent]")
        assert command == f"destseg calibrate 'my part.destseg' --false-positive-rate {rate}"
        assert (
            f"at most {float(f'{100 * rate:.3g}'):g} % " in text
            and f"threshold {pixel_threshold:.4g}:" in text
        )
    opened.execute_cdp_cmd("Browser.grantPermissions", {"permissions": ["clipboardReadWrite"]})
    opened.execute_script("$('copy').click()")
    time.sleep(0.1)
    copied = "navigator.clipboard.readText().then(arguments[0])"
    assert opened.execute_async_script(copied) == command
    enter(opened, "exact", str(attainable[0][0] / 2))
    assert opened.execute_script("return [$('setting').hidden, $('rate').textContent]") == [
        True,
        "No false-positive rate is promised here: all calibration pictures score above.",
    ]


def test_masks_are_those_of_python_at_any_pixel_threshold(opened, report, found):
    ndimage, edges = pytest.importorskip("scipy.ndimage"), report.gallery.edges
    script = "return visible.filter((row) => row.layer).map((row) => [row.name, row.images[1][1].ariaLabel])"
    for level in (None, 60, 120):
        if level is not None:
            enter(opened, "pixels", level)
            low = edges[np.abs(edges - EXTENT * edges[level]).argmin()]
        shown = opened.execute_script(script)
        assert len(shown) >= 24
        for name, words in shown:
            if level is None:
                mask = mask_of(found[name], report.calibration.pixel_threshold)
            else:
                strong, weak = found[name] > edges[level], found[name] > low
                mask = ndimage.binary_propagation(strong, np.ones((3, 3)), weak)
            assert words.endswith(f"which covers {float(f'{100 * mask.mean():.3g}'):g} %"), name
    painted = "return rows.find((row) => row.layer).images.map(([, canvas]) => canvas.width * canvas.height)"
    assert opened.execute_script(painted) == [48 * 64] * 2


def test_curves_mark_the_thresholds(opened, report, found):
    captions = "return [...document.querySelectorAll('figure p')].map((it) => it.textContent)"

    def numbers(name):
        text = opened.execute_script(captions)[list(report.curves).index(name)]
        return [float(number) / 100 for number in re.findall(r"([\d.e-]+) %", text)]

    good = np.array([row.score for row in report.rows if row.defect == "good"])
    bad = np.array([row.score for row in report.rows if row.defect != "good"])
    inside = np.zeros((len(found), *SIZE), bool)
    inside[:, 10:20, 20:30] = np.array([row.defect != "good" for row in report.rows])[:, None, None]
    maps = np.stack(list(found.values()))
    for threshold, level in ((report.threshold, None), (0.15, 140), (0.04, 70), (0.9, 75)):
        enter(opened, "exact", str(threshold))
        if level is not None:
            enter(opened, "pixels", level)
        pixel_threshold = report.calibration.pixel_threshold if level is None else report.gallery.edges[level]
        alarms, hits = (good > threshold).sum(), (bad > threshold).sum()
        recall, precision = hits / len(bad), hits / max(hits + alarms, 1) if hits else 1
        assert numbers("image_roc") == pytest.approx([alarms / len(good), recall], abs=5e-4)
        assert numbers("image_precision_recall") == pytest.approx([recall, precision], abs=5e-4)
        marked = maps > pixel_threshold
        rate, recall = marked[~inside].mean(), marked[inside].mean()
        assert numbers("pixel_roc") == pytest.approx([rate, recall], abs=0.01)
        precision = marked[inside].sum() / marked.sum()
        assert numbers("pixel_precision_recall") == pytest.approx([recall, precision], abs=0.01)
        covered = marked[inside].reshape(len(bad), -1)
        assert numbers("region_overlap") == pytest.approx([rate, covered.mean()], abs=0.01)
        assert numbers("instance_precision")[0] == pytest.approx((covered.mean(1) > 0.5).mean(), abs=0.06)


def test_filters_show_what_they_name(opened, report):
    other = next(defect for defect in report.defects if defect != "scratch")
    enter(opened, "defect", other)
    assert {name for name, _ in cards(opened)} == {row.name for row in report.rows if row.defect == other}
    enter(opened, "verdict", "missed")
    expected = {row.name for row in report.rows if row.defect == other and not row.is_anomalous}
    assert {name for name, _ in cards(opened)} == expected
    assert opened.execute_script("return $('shown').textContent") == f"{len(expected)} of 40 pictures"
    enter(opened, "defect", "")
    enter(opened, "verdict", "marked")
    assert cards(opened) == []


def test_keys_step_and_mark_and_the_marks_are_exported(opened, report, tmp_path):
    from selenium.webdriver.common.keys import Keys

    names = [name for name, _ in cards(opened)]
    here = "return document.activeElement.row?.name"
    press(opened, "f")  # nothing is chosen yet
    press(opened, Keys.ARROW_RIGHT)
    assert opened.execute_script(here) == names[0]
    press(opened, Keys.ARROW_RIGHT, Keys.ARROW_DOWN, Keys.ARROW_LEFT, "f")
    assert opened.execute_script(here) == names[1]
    press(opened, Keys.ARROW_RIGHT, "m", Keys.ARROW_RIGHT, "f", Keys.ARROW_RIGHT, "f", "f")
    pressed = "return [...document.querySelectorAll('[aria-pressed=true]')].map((it) => it.textContent)"
    assert opened.execute_script(pressed) == ["false alarm", "missed", "false alarm"]
    enter(opened, "verdict", "marked")
    assert [name for name, _ in cards(opened)] == names[1:4]
    opened.refresh()  # marks are remembered
    settle(opened)
    opened.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)}
    )
    opened.execute_script("$('export').click()")
    exported, end = tmp_path / "marks.txt", time.monotonic() + 60
    while not exported.exists() and time.monotonic() < end:
        time.sleep(0.05)
    listed = read_lists([f"@{exported}"])
    assert sorted(listed) == sorted(f"/parts/{names[k]}" for k in (1, 3))
    assert f"# missed: /parts/{names[2]}" in exported.read_text().splitlines()


def test_the_page_fits_is_readable_and_prints(opened, width):
    check_readable(opened, width)
    printed = base64.b64decode(opened.execute_cdp_cmd("Page.printToPDF", {})["data"])
    assert printed.startswith(b"%PDF") and printed.count(b"/Subtype /Image") >= 24
