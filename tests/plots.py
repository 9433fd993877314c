#!/usr/bin/env python3
"""Checks the plots of loadtest/results: each is the plot of its table, holds its bars, and shows its labels whole; and
how figures are compared.

Reads files only. `--bless` writes the plots of the tables anew. Prints every problem and exits with 1 if there is one.
"""

import sys
import xml.etree.ElementTree
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO / "loadtest"))

import all_figures  # noqa: E402 (in loadtest/)
import plot  # noqa: E402
import report  # noqa: E402

RESULTS = REPO / "loadtest" / "results"
NAMESPACE = "{http://www.w3.org/2000/svg}"
# Shortest bar that can be seen, in pixels.
MIN_BAR = 0.5


def boxes_of_texts(svg, size):
    """Returns each text with its left, right, top and bottom end."""
    boxes = []
    for text in svg.iter(f"{NAMESPACE}text"):
        of_text = float(text.get("font-size", size))
        width, x, baseline = plot.text_width(text.text, of_text), float(text.get("x")), float(text.get("y"))
        left = x - width if text.get("text-anchor") == "end" else x
        boxes.append((text.text, left, left + width, baseline - of_text, baseline + of_text / 4))
    return boxes


def problems_of(text, bars):
    """Returns what is wrong with a plot that must have so many bars, None for any number."""
    svg = xml.etree.ElementTree.fromstring(text)
    width, height = float(svg.get("width")), float(svg.get("height"))
    texts = boxes_of_texts(svg, svg.get("font-size"))
    found = [bar for bar in svg.iter(f"{NAMESPACE}rect") if bar.get("class") == "bar"]
    if not found or bars not in (None, len(found)):
        yield f"has {len(found)} bars instead of {bars or 'some'}"
    for bar in found:
        left, length, top = (float(bar.get(name)) for name in ("x", "width", "y"))
        if length < MIN_BAR or left < 0 or left + length > width or top + float(bar.get("height")) > height:
            yield f"the bar at {top} isn't on the page, or too short to be seen"
        if not any(right <= left and top < bottom <= top + 2 * plot.BAR for _, _, right, _, bottom in texts):
            yield f"the bar at {top} has no label"
    for n, (label, left, right, top, bottom) in enumerate(texts):
        if left < 0 or right > width or top < 0 or bottom > height:
            yield f"{label!r} is cut off: it goes from {left:.0f} to {right:.0f} on a page of {width:.0f}"
        for other, x, x_end, y, y_end in texts[n + 1:]:
            if left < x_end and x < right and top < y_end and y < bottom:
                yield f"{label!r} and {other!r} overlap"


def self_test():
    """Yields each fault that isn't found."""
    bars = [plot.Bar("talos", 5.0, "5", (4.0, 6.0)), plot.Bar("floor", 10.0, "10", (9.0, 11.0))]
    good = plot.bar_chart("A title that is short", "how it was measured", [("a scenario " * 20, bars)])
    for name, change in {
        "no bars": lambda text: "\n".join(line for line in text.split("\n") if 'class="bar"' not in line),
        "one bar too few": lambda text: text.replace('class="bar"', "", 1),
        "a label that is cut off": lambda text: text.replace(">talos<", ">" + "talos " * 40 + "<"),
        "a bar beyond the page": lambda text: text.replace('width="900"', 'width="500"'),
    }.items():
        if not list(problems_of(change(good), 2)):
            yield f"{name} isn't noticed"
    if list(problems_of(good, 2)):
        yield f"a good plot has problems: {list(problems_of(good, 2))}"
    for name, groups in {"no bars": [("a", [])], "a label without end": [(None, [plot.Bar("x" * 99, 1.0, "1")])]}.items():
        try:
            plot.bar_chart("title", "subtitle", groups)
            yield f"{name} is drawn"
        except plot.PlotError:
            pass
    for figure, before, now, expected in [
        ("CPU µs a Check", [5.0, 6.0], [6.1, 7.0], "WORSE"), ("CPU µs a Check", [5.0, 6.0], [6.0, 7.0], "as before"),
        ("CPU µs a Check", [5.0, 6.0], [4.0, 4.9], "better"), ("Checks a second", [5.0, 6.0], [4.0, 4.9], "WORSE"),
        ("Checks a second", [5.0, 6.0], [6.1], "better"), ("Checks a second", [], [6.1], "new"),
        ("rows of the log of changes", [5.0], [9.0], ""),
    ]:
        if all_figures.verdict(figure, before, now) != expected:
            yield f"{figure}, {now} after {before}, isn't {expected!r}"


def main():
    problems = list(self_test())
    for table in sorted(RESULTS.glob("*.csv")):
        rows, *about = report.read_written(table.with_suffix(".md"))
        drawn, path = report.plot_of(rows, *about), table.with_suffix(".svg")
        if "--bless" in sys.argv[1:]:
            path.write_text(drawn)
        if not path.exists() or path.read_text() != drawn:
            problems.append(f"{path.relative_to(REPO)} isn't the plot of its table; write it with tests/plots.py --bless")
        figure, _ = report.PLOTTED.get(about[0], report.OF_CHECKS)
        bars = sum(what == figure and " / " not in server for _, server, what, _ in rows.rows)
        problems += [f"{path.relative_to(REPO)}: {problem}" for problem in problems_of(drawn, bars)]
    for path in sorted(RESULTS.glob("*.svg")):
        problems += [f"{path.relative_to(REPO)}: {problem}" for problem in problems_of(path.read_text(), None)]
    for problem in problems:
        print(problem)
    print(f"{len(problems)} problems" if problems else "plots: as they should be")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
