#!/usr/bin/env python3
"""Checks the documentation: links, anchors, the book's summary, and the length of the front pages.

Reads files only, so it takes well under a second. Prints every problem and exits with 1 if there is one.
"""

import re
import sys
from pathlib import Path
from urllib.parse import unquote

REPO = Path(__file__).resolve().parent.parent
DOCS = REPO / "docs"
# Most lines that a page may have, so that a newcomer reads it to its end.
MAX_LINES = {"README.md": 150, "ARCHITECTURE.md": 150}
# Pages that are no text to read.
NOT_READ = {"SUMMARY.md"}
# Folders that hold nothing of ours.
SKIPPED = {".git", "target", "node_modules", "corpus"}
# Texts in which a document may be cited by its path.
SOURCES = {".rs", ".py", ".yaml", ".yml", ".toml", ".sql", ".proto"}

FENCE = re.compile(r"^(```|~~~).*?^\1\s*$", re.S | re.M)
CODE = re.compile(r"`[^`\n]*`")
LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+(?:\([^()\s]*\))?)\)")
IMAGE = re.compile(r"""(?:src|srcset|href)=["']([^"']+)["']""")
ANCHOR = re.compile(r"""<a (?:id|name)=["']([^"']+)["']""")
HEADING = re.compile(r"^#{1,6} +(.+?)\s*#*$", re.M)
# A path of the tree in backticks: it has a folder or ends like a file.
PATH = re.compile(r"`([\w.{][\w./{},-]*(?:\.(?:rs|py|yaml|json|toml|sql|md|proto)|(?<=\w)/))`")
# Where a path may begin.
ROOTS = ("", "src", "src/http/wire", "src/doctor/rules")
CITED = re.compile(r"[\w./-]*\w\.md\b")


def files(*suffixes):
    """Every file of the tree with one of these suffixes, in order."""
    found = []
    for path in sorted(REPO.rglob("*")):
        if path.suffix in suffixes and not SKIPPED.intersection(path.relative_to(REPO).parts) and path.is_file():
            found.append(path)
    return found


def slug(heading):
    """The anchor that forges make of a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
    text = re.sub(r"[^\w\- ]", "", text.strip().lower())
    return text.replace(" ", "-")


def anchors(text):
    """Every anchor of a page: its headings, a repeated one with a number, and those that are written out."""
    found, seen = set(ANCHOR.findall(text)), {}
    for heading in HEADING.findall(FENCE.sub("", text)):
        name = slug(heading)
        count = seen.get(name, 0)
        seen[name] = count + 1
        found.add(f"{name}-{count}" if count else name)
    return found


def check_links(pages, problems):
    """Every relative link leads to a file, and its anchor into it."""
    for page, text in pages.items():
        prose = CODE.sub("", FENCE.sub("", text))
        for target in LINK.findall(prose) + IMAGE.findall(prose):
            if re.match(r"[a-z][a-z0-9+.-]*:", target):
                continue
            path, _, anchor = unquote(target).partition("#")
            found = (page.parent / path).resolve() if path else page
            where = page.relative_to(REPO)
            if not found.exists():
                problems.append(f"{where}: {target}: there is no such file")
            elif anchor and found.suffix == ".md" and anchor not in anchors(pages.get(found) or found.read_text()):
                problems.append(f"{where}: {target}: there is no such heading")


def check_summary(pages, problems):
    """The book has every page once."""
    summary = DOCS / "SUMMARY.md"
    listed = [(DOCS / target).resolve() for target in LINK.findall(pages[summary])]
    for page in pages:
        if DOCS in page.parents and page != summary and listed.count(page) != 1:
            problems.append(f"docs/SUMMARY.md: lists {page.relative_to(DOCS)} {listed.count(page)} times, not once")


def check_audience(pages, problems):
    """Each page begins with the sentence that says for whom it is."""
    for page, text in pages.items():
        if DOCS not in page.parents or page.name in NOT_READ:
            continue
        first = text.split("\n\n", 2)
        if len(first) < 2 or not first[0].startswith("# ") or not first[1].startswith("For "):
            problems.append(f"{page.relative_to(REPO)}: the first sentence must say for whom the page is (For …)")


def check_runbook(pages, problems):
    """Each alert has a heading in the runbook, to which its `runbook_url` leads; no heading is without its alert."""
    text = (REPO / "helm/talos/alerts.yaml").read_text()
    alerts = re.findall(r"^\s+- alert: (\w+)$", text, re.M)
    for alert, rule in zip(alerts, re.split(r"^\s+- alert: ", text, flags=re.M)[1:]):
        if f"runbook_url: docs/runbook.md#{alert.lower()}\n" not in rule:
            problems.append(f"helm/talos/alerts.yaml: {alert} lacks `runbook_url: docs/runbook.md#{alert.lower()}`")
    headings = re.findall(r"^## (\w+)$", pages[DOCS / "runbook.md"], re.M)
    if headings != alerts:
        wrong = sorted(set(alerts) ^ set(headings)) or "order"
        problems.append(f"docs/runbook.md: its headings must be the alerts of helm/talos/alerts.yaml, in order: {wrong}")


def check_messages(pages, problems):
    """The words of a message that the page of symptoms quotes are in the sources."""
    sources = "\n".join(path.read_text() for path in (REPO / "src").rglob("*.rs"))
    # A text that goes over several lines of the source is one line.
    sources = re.sub(r"\\\n\s*", "", sources)
    for table in re.findall(r"^\| message \|.*?(?=\n\n)", pages[DOCS / "troubleshooting.md"], re.M | re.S):
        for row in table.splitlines()[2:]:
            cell = row.split(" | ")[0]
            for words in re.findall(r"`([^`]+)`", cell):
                # Messages of the operating system, variables and commands aren't in the sources.
                if words not in sources and not re.match(r"Permission|Address|TALOS_|talos ", words):
                    problems.append(f"docs/troubleshooting.md: no message has the words {words!r}")


def check_length(pages, problems):
    """The front pages are short."""
    for name, most in MAX_LINES.items():
        lines = len(pages[REPO / name].splitlines())
        if lines > most:
            problems.append(f"{name}: has {lines} lines, and may have {most}")


def spelled_out(text):
    """The texts that one with alternatives in braces stands for."""
    found = re.search(r"\{([^{}]*)\}", text)
    if not found:
        return [text]
    return [one for choice in found[1].split(",") for one in spelled_out(text[: found.start()] + choice + text[found.end() :])]


def check_paths(pages, problems):
    """A path that a page about the code names, as `cache/memory.rs`, is in the tree."""
    about_code = [REPO / name for name in ("ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md")]
    about_code += [page for page in pages if DOCS / "design" in page.parents]
    for page in about_code:
        for named in PATH.findall(FENCE.sub("", pages[page])):
            for path in spelled_out(named):
                if "NAME" not in path and not any((REPO / root / path).exists() for root in ROOTS):
                    problems.append(f"{page.relative_to(REPO)}: `{path}`: there is no such file")


def check_citations(problems):
    """A document that a source cites is in the tree."""
    names = {path.name for path in files(".md")}
    for source in files(*SOURCES):
        # This file's own examples aren't citations.
        if source == Path(__file__).resolve():
            continue
        for number, line in enumerate(source.read_text(errors="replace").splitlines(), 1):
            for cited in CITED.findall(line):
                # A bare name may be a file that a program writes.
                if "/" in cited and Path(cited).name not in names:
                    problems.append(f"{source.relative_to(REPO)}:{number}: cites {cited}, which isn't in the tree")


def main():
    pages = {path: path.read_text() for path in files(".md")}
    problems = []
    check_links(pages, problems)
    check_summary(pages, problems)
    check_audience(pages, problems)
    check_runbook(pages, problems)
    check_messages(pages, problems)
    check_length(pages, problems)
    check_paths(pages, problems)
    check_citations(problems)
    for problem in problems:
        print(problem)
    print(f"{len(pages)} pages, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
