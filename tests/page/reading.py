"""What must hold of every page in a browser: contrast, width, names for those who do not see it."""

# The contrast of each kind of text with what is behind it, as WCAG defines it.
CONTRASTS = """
const parse = (text) => text.match(/[\\d.]+/g).map(Number);
const linear = (c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4);
const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
function behind(node) {
  const colour = parse(getComputedStyle(node).backgroundColor);
  return colour[3] === 0 ? behind(node.parentElement) : colour;
}
const texts = "h1, p, dt, dd, td, th, li, label, code, button:enabled, .card h3, .verdict, .card";
return [...document.querySelectorAll(texts)].map((node) => {
  const both = [light(parse(getComputedStyle(node).color)), light(behind(node))];
  return [(Math.max(...both) + 0.05) / (Math.min(...both) + 0.05), node.outerHTML.slice(0, 80)];
});
"""
UNNAMED = """
const all = "input, select, img, svg:not([aria-hidden]), button, canvas:not([aria-hidden])";
const named = (it) => it.labels?.length || it.ariaLabel || it.hasAttribute("alt") || it.textContent.trim();
return [...document.querySelectorAll(all)].filter((it) => !named(it)).map((it) => it.outerHTML);
"""


def resize(browser, width):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def check_readable(browser, width):
    for scheme in ("light", "dark"):
        preference = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", preference)
        low = [found for found in browser.execute_script(CONTRASTS) if found[0] < 4.5]
        assert not low, scheme
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script(UNNAMED) == []
