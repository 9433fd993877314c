"""All figures of docs/performance.md, one run after the other, beside those that are committed."""

import subprocess
import sys
from pathlib import Path

from report import read_written_text, spread, summary

REPO = Path(__file__).resolve().parent.parent
# Names of the results, and the arguments of `loadtest/run` that make them.
RUNS = {
    "load": ["load", "--build", "perf", "--rounds", "5", "--seconds", "2", "--no-envoy"],
    "edge": ["edge", "--build", "perf", "--rounds", "15", "--seconds", "2"],
    "misses": ["misses", "--keys", "3000", "--rounds", "9"],
    "growth": ["growth", "--stores", "sqlite", "--rounds", "5", "--seconds", "1"],
    "growth-postgres": ["growth", "--stores", "postgres", "--keys", "100000", "--rounds", "3", "--seconds", "1",
                        "--name", "growth-postgres"],
    "mixed": ["mixed"],
    "writes": ["writes"],
    "h2load": ["h2load"],
}
# Figures that other commands print.
COMMANDS = {
    "instructions": [sys.executable, str(REPO / "loadtest" / "instructions"), "--build", "perf"],
    "minting": ["cargo", "bench", "--locked", "--profile", "perf", "--bench", "hot", "--", "mint"],
}
NAMES = [*RUNS, *COMMANDS]
# Figures that are neither good nor bad.
FACTS = {"rows of the log of changes", "refused a round"}


def is_higher_better(figure):
    return "a second" in figure


def verdict(figure, before, now):
    """Compares the values of a figure: it changed if their spreads don't touch."""
    if figure in FACTS or not summary(now):
        return ""
    if not summary(before):
        return "new"
    (_, least, most), (_, least_now, most_now) = summary(before), summary(now)
    if least_now > most:
        return "better" if is_higher_better(figure) else "WORSE"
    if most_now < least:
        return "WORSE" if is_higher_better(figure) else "better"
    return "as before"


def compare(before, now, is_same_machine):
    """Yields a line for each figure of a table, with its verdict.

    On another machine, only ratios can be compared.
    """
    known = {row[:3]: row[3] for row in before.rows}
    for scenario, server, figure, values in now.rows:
        old = known.get((scenario, server, figure), [])
        judged = verdict(figure, old, values)
        if judged in ("better", "WORSE", "as before") and not is_same_machine and " / " not in server:
            judged = "another machine"
        beside = f", before {spread(old)}" if summary(old) else ""
        yield judged, f"{scenario}, {server}: {figure}: {spread(values)}{beside}"


def committed(name):
    """Returns the committed results of a name: their table and machine; None if there are none."""
    texts = []
    for suffix in ("md", "csv"):
        command = ["git", "show", f"HEAD:loadtest/results/{name}.{suffix}"]
        shown = subprocess.run(command, cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        if shown.returncode != 0:
            return None
        texts.append(shown.stdout)
    table, _, _, cpu, _ = read_written_text(*texts)
    return table, cpu


def run_all(results, only, more):
    """Runs everything, or what `only` names. Returns the exit code: 1 if a run failed, whatever the figures are."""
    unknown = sorted(set(only or []) - set(NAMES))
    if unknown:
        print(f"== unknown: {', '.join(unknown)}; there are {', '.join(NAMES)}")
        return 2
    names = [name for name in NAMES if name in (only or NAMES)]
    failed, worse, lines = [], [], []
    for number, name in enumerate(names, 1):
        print(f"== {number} of {len(names)}: {name}", flush=True)
        if name in COMMANDS:
            if subprocess.run(COMMANDS[name], cwd=REPO).returncode != 0:
                failed.append(name)
            continue
        # What is given on the command line counts, as it comes last.
        command = [sys.executable, str(REPO / "loadtest" / "run"), *RUNS[name], "--results", str(results), *more]
        written = results / f"{name}.md"
        before = written.stat().st_mtime_ns if written.exists() else None
        if subprocess.run(command, cwd=REPO).returncode != 0:
            failed.append(name)
            continue
        if not written.exists() or written.stat().st_mtime_ns == before:
            continue  # skipped, and the run says why
        table, _, _, cpu, _ = read_written_text(written.read_text(), written.with_suffix(".csv").read_text())
        old = committed(name) or (type(table)(), cpu)
        for judged, line in compare(old[0], table, old[1] == cpu):
            print(f"   {judged:>15}  {line}", flush=True)
            lines.append(f"| {judged} | {line.replace('|', '/')} |")
            worse += [line] if judged == "WORSE" else []
    text = "# `loadtest/run all`\n\nEach figure beside the committed one. It changed if the spreads don't touch.\n\n"
    (results / "all.md").write_text(text + "\n".join(["| | figure |", "|---|---|", *lines]) + "\n")
    print(f"\n== {len(lines)} figures, {len(worse)} worse beyond the spread{':' if worse else ''}")
    for line in worse:
        print(f"   {line}")
    if failed:
        print(f"== FAILED: {', '.join(failed)}")
    return 1 if failed else 0
