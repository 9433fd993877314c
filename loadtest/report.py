"""Report of a comparison: a table in Markdown and CSV, and a plot in SVG."""

import csv
import html
import statistics


def summary(values):
    """Returns median, minimum and maximum, None without values."""
    values = [value for value in values if value is not None]
    return (statistics.median(values), min(values), max(values)) if values else None


def number(value):
    """Formats a number with its significant digits."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def spread(values):
    """Formats values as `median (minimum to maximum)`."""
    found = summary(values)
    return f"{number(found[0])} ({number(found[1])} to {number(found[2])})" if found else ""


class Table:
    """Rows of measurements: scenario, server, figure with its unit, and a value per round."""

    def __init__(self):
        self.rows = []

    def add(self, scenario, server, figure, values):
        self.rows.append((scenario, server, figure, list(values)))

    def ratio(self, scenario, figure, one, other):
        """Adds the ratios of two servers, round by round."""
        values = {server: row for name, server, what, row in self.rows if (name, what) == (scenario, figure)}
        if one in values and other in values:
            pairs = zip(values[one], values[other])
            self.add(scenario, f"{one} / {other}", figure, [a / b for a, b in pairs if a is not None and b])

    def markdown(self):
        lines = ["| scenario | server | figure | median (least to most) | rounds |", "|---|---|---|---|---|"]
        for scenario, server, figure, values in self.rows:
            lines.append(f"| {scenario} | {server} | {figure} | {spread(values)} | {len(values)} |")
        return "\n".join(lines) + "\n"

    def write_csv(self, path):
        with path.open("w", newline="") as file:
            out = csv.writer(file)
            out.writerow(["scenario", "server", "figure", "median", "least", "most", "rounds"])
            for scenario, server, figure, values in self.rows:
                found = summary(values) or ("", "", "")
                out.writerow([scenario, server, figure, *found, " ".join(f"{value:.6g}" for value in values if value is not None)])

    def svg(self, figure, title, subtitle):
        """Returns a bar chart of one figure, grouped by scenario, with a line from minimum to maximum."""
        rows = [(scenario, server, summary(values)) for scenario, server, what, values in self.rows
                if what == figure and "/" not in server and summary(values)]
        width, row, left, right = 900, 26, 330, 90
        top = max((most for _, _, (_, _, most) in rows), default=1)
        scale = (width - left - right) / top
        colours = {"talos": "#2b6cb0", "floor": "#a0aec0"}
        out, y, before = [], 74, None
        for scenario, server, (value, least, most) in rows:
            y += 10 if before not in (None, scenario) else 0
            label = f"{scenario} · {server}" if before != scenario else server
            before = scenario
            colour = colours.get(server.split(" ")[-1], "#68a691")
            out.append(f'<text x="{left - 8}" y="{y + 15}" text-anchor="end">{html.escape(label)}</text>')
            out.append(f'<rect x="{left}" y="{y + 3}" width="{value * scale:.1f}" height="16" fill="{colour}"/>')
            out.append(f'<line x1="{left + least * scale:.1f}" x2="{left + most * scale:.1f}" y1="{y + 11}" y2="{y + 11}"/>')
            out.append(f'<text x="{left + most * scale + 6:.1f}" y="{y + 15}">{number(value)}</text>')
            y += row
        return "\n".join([
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y + 20}" font-family="sans-serif" '
            'font-size="13" stroke-width="2">',
            '<style>line{stroke:#1a202c}text{fill:#1a202c}</style><rect width="100%" height="100%" fill="#ffffff"/>',
            f'<text x="20" y="30" font-size="18">{html.escape(title)}</text>',
            f'<text x="20" y="52">{html.escape(subtitle)}</text>',
            *out, "</svg>\n",
        ])
