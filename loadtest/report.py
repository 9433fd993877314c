"""Report of a comparison: a table in Markdown and CSV, and a plot in SVG."""

import csv
import re
import statistics

import plot


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
        groups = {}
        for scenario, server, what, values in self.rows:
            found = summary(values)
            if what == figure and " / " not in server and found:
                bar = plot.Bar(server, found[0], number(found[0]), found[1:])
                groups.setdefault(scenario, []).append(bar)
        return plot.bar_chart(title, subtitle, list(groups.items()))


# The figure that is plotted of each profile, and the title of the plot.
OF_CHECKS = ("CPU µs a Check", "CPU of the server, µs a Check")
PLOTTED = {
    "edge": ("Envoy's CPU µs a request", "CPU of Envoy, µs a request"),
    "misses": ("p50 µs", "p50 of a Check and of a bare client, µs"),
    "writes": ("changes a second", "changes a second"),
    "mixed": ("CPU µs an operation", "CPU of the server, µs an operation"),
}


def plot_of(table, profile, date, cpu, command):
    """Returns the plot of a run of a profile."""
    figure, title = PLOTTED.get(profile, OF_CHECKS)
    return table.svg(figure, title, f"{date}, {cpu}; {command}")


def read_written(markdown):
    """Reads a written report, with the table beside it, as `read_written_text` does."""
    return read_written_text(markdown.read_text(), markdown.with_suffix(".csv").read_text())


def read_written_text(markdown, rows):
    """Reads a written report: its table, and the profile, date, machine and command of its run."""
    table = Table()
    for row in csv.DictReader(rows.splitlines()):
        values = [float(value) for value in row["rounds"].split()]
        table.add(row["scenario"], row["server"], row["figure"], values)
    command = re.search(r"^# `(.+)`$", markdown, re.M).group(1)
    date, cpu = (re.search(rf"^- {fact}: (.+)$", markdown, re.M).group(1) for fact in ("date", "cpu"))
    return table, command.split()[1], date, cpu, command
