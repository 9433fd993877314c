"""Bar charts in SVG. Every label has room: its width is estimated, and the page is laid out by that."""

import html
from dataclasses import dataclass

WIDTH, MARGIN, GAP = 900, 20, 8
FONT_SIZE, TITLE_SIZE = 13, 18
ROW, BAR, LINE = 26, 16, 20
# Most of the width that labels and values may take, so that bars stay readable.
MAX_LABEL, MAX_VALUE = 380, 240
COLOURS = {"talos": "#2b6cb0", "floor": "#a0aec0"}
OTHER_COLOUR = "#68a691"
# Widths of characters in a wide sans-serif (DejaVu Sans), as shares of the font's size.
NARROW, WIDE = set(" .,:;'|!ijlI()[]/·"), set("mwMW@%—…")
NARROW_WIDTH, USUAL_WIDTH, WIDE_WIDTH = 0.42, 0.66, 1.0


@dataclass
class Bar:
    """A bar: its label, its length, the text behind it, and the line from the least to the most."""

    label: str
    value: float
    text: str
    spread: tuple = None


class PlotError(Exception):
    """A chart can't be drawn; the text says why."""


def text_width(text, size=FONT_SIZE):
    """Returns the width of a text in pixels, rather too large than too small."""
    shares = (NARROW_WIDTH if c in NARROW else WIDE_WIDTH if c in WIDE else USUAL_WIDTH for c in text)
    return size * sum(shares)


def wrapped(text, width, size=FONT_SIZE):
    """Splits a text at its blanks into lines that are no wider."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and text_width(longer, size) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    too_wide = [line for line in lines if text_width(line, size) > width]
    if too_wide:
        raise PlotError(f"{too_wide[0]!r} is wider than {width} pixels and has no blank to break it at")
    return lines


def bar_chart(title, subtitle, groups):
    """Returns a chart of groups of bars: pairs of a heading, which may be None, and its bars."""
    bars = [bar for _, group in groups for bar in group]
    if not bars:
        raise PlotError(f"{title!r} has no bars")
    labels = max(text_width(bar.label) for bar in bars)
    values = max(text_width(bar.text) for bar in bars)
    for what, width, most in (("label", labels, MAX_LABEL), ("value", values, MAX_VALUE)):
        if width > most:
            raise PlotError(f"{title!r} has a {what} of {width:.0f} pixels; at most {most} fit")
    left = MARGIN + labels + GAP
    top = max(max(bar.value, *(bar.spread or ())) if bar.spread else bar.value for bar in bars) or 1
    scale = (WIDTH - MARGIN - values - GAP - left) / top
    out, y = [], MARGIN

    def text(line, x, baseline, attributes=""):
        out.append(f'<text x="{x:.1f}" y="{baseline:.1f}"{attributes}>{html.escape(line)}</text>')

    for size, words in ((TITLE_SIZE, title), (FONT_SIZE, subtitle)):
        for line in wrapped(words, WIDTH - 2 * MARGIN, size):
            y += size + 4
            text(line, MARGIN, y, f' font-size="{size}"')
        y += 4
    for heading, group in groups:
        y += GAP
        for line in wrapped(heading or "", WIDTH - 2 * MARGIN) if heading else []:
            y += LINE
            text(line, MARGIN, y - 4, ' font-weight="bold"')
        for bar in group:
            colour = COLOURS.get(bar.label.split(" ")[-1], OTHER_COLOUR)
            end = left + max(bar.value, bar.spread[1] if bar.spread else 0) * scale
            text(bar.label, left - GAP, y + 15, ' text-anchor="end"')
            out.append(f'<rect class="bar" x="{left:.1f}" y="{y + 3:.1f}" width="{bar.value * scale:.1f}" height="{BAR}" '
                       f'fill="{colour}"/>')
            if bar.spread:
                least, most = (left + value * scale for value in bar.spread)
                out.append(f'<line x1="{least:.1f}" x2="{most:.1f}" y1="{y + 11:.1f}" y2="{y + 11:.1f}"/>')
            text(bar.text, end + GAP, y + 15)
            y += ROW
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y + MARGIN:.0f}" '
        f'font-family="DejaVu Sans, Verdana, sans-serif" font-size="{FONT_SIZE}" stroke-width="2">',
        '<style>line{stroke:#1a202c}text{fill:#1a202c}</style><rect width="100%" height="100%" fill="#ffffff"/>',
        *out, "</svg>\n",
    ])
