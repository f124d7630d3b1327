"""Draw docs/quality.png from tables in docs/quality_log.md: quality against operations, and against minutes.

python tools/plot_quality.py
"""

from pathlib import Path

import matplotlib.pyplot as plt

DOCS = Path(__file__).parents[1] / "docs"
COLOURS = {"pixel AP": "#c2410c", "IAP": "#0f766e"}


def main() -> None:
    text = (DOCS / "quality_log.md").read_text()
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    networks = table(text, "## Quality against operations")
    for name, colour in COLOURS.items():
        values = [float(row[name]) for row in networks]
        left.scatter([float(row["GFLOP"]) for row in networks], values, color=colour, label=name, zorder=3)
        for row, value in zip(networks, values, strict=True):
            right_of = name == "pixel AP" and float(row["GFLOP"]) < 50  # so that labels do not overlap
            place = (6 if right_of else -6, 5 if "embedded" in row["network"] else -3)
            left.annotate(
                row["network"],
                (float(row["GFLOP"]), value),
                place,
                textcoords="offset points",
                fontsize=8,
                va="center",
                ha="left" if right_of else "right",
            )
    left.set(xscale="log", xlim=(4, 100), xlabel="GFLOP, 256 x 256 pixels", title="Against operations")
    left.set_xticks([5, 10, 20, 50, 100], labels=["5", "10", "20", "50", "100"])
    schedules = table(text, "## Quality against minutes")
    for data, line in (("transistor", "o-"), ("magnetic tile", "s--")):
        rows = [row for row in schedules if row["data"] == data]
        for name, colour in COLOURS.items():
            values = [float(row[name]) for row in rows]
            right.plot(
                [float(row["minutes"]) for row in rows], values, line, color=colour, label=f"{name}, {data}"
            )
    right.set(xlim=(0, None), xlabel="minutes of training on two cores", title="Against minutes")
    for axes in (left, right):
        axes.set(ylim=(0, 100), ylabel="percent")
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right")
    figure.savefig(DOCS / "quality.png", dpi=100)


def table(text: str, heading: str) -> list[dict[str, str]]:
    """Return the rows of the first Markdown table below a heading, each as a dict by column name."""
    section = text.split(heading + "\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return [dict(zip(header, row, strict=True)) for row in rows]


if __name__ == "__main__":
    main()
