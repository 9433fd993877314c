#!/usr/bin/env python3
"""What is built in and how: licences, sources and banned packages, the bill of materials, unsafe code, the image."""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO / "envoy"))

import tools  # noqa: E402

sys.path.insert(0, str(tools.ensure_kubernetes_validate()))

import jsonschema  # noqa: E402
from referencing import Registry, Resource  # noqa: E402


def cargo_deny(config):
    """Runs cargo-deny with a configuration; the database of advisories isn't at hand here and left out."""
    command = [tools.ensure_cargo_deny(), "--offline", "--locked", "--config", config, "check", "bans", "licenses", "sources"]
    return subprocess.run(command, cwd=REPO, capture_output=True, text=True)


def dependencies():
    """deny.toml holds, and would tell if it didn't."""
    # Those that other platforms need, too: a build fetches what this one does.
    subprocess.run(["cargo", "fetch", "--quiet", "--locked"], cwd=REPO, check=True)
    done = cargo_deny(REPO / "deny.toml")
    problems = [] if done.returncode == 0 else [done.stderr]
    text = (REPO / "deny.toml").read_text()
    for old, new in (('{ crate = "ring" }', '{ crate = "hmac" }'), ('    "MIT",\n', ""), ('"MIT"', '"GPL-3.0"')):
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
            file.write(text.replace(old, new))
            file.flush()
            if text.replace(old, new) == text or cargo_deny(file.name).returncode == 0:
                problems.append(f"cargo-deny lets pass {new or 'what isn’t allowed any more'}")
    return problems


def bill_of_materials():
    """It is valid CycloneDX, complete, and the same each time."""
    first, second = (subprocess.run([REPO / "supply" / "sbom"], check=True, capture_output=True).stdout for _ in range(2))
    if first != second:
        return ["two bills of one lock differ"]
    bill = json.loads(first)
    schemas = {path.name: json.loads(path.read_text()) for path in tools.ensure_cyclonedx_schemas().glob("*.schema.json")}
    schema = schemas["bom-1.6.SNAPSHOT.schema.json"]
    registry = Registry().with_resources((one["$id"], Resource.from_contents(one)) for one in schemas.values() if "$id" in one)
    problems = [error.message for error in jsonschema.Draft7Validator(schema, registry=registry).iter_errors(bill)]
    names = {one["name"] for one in bill["components"]}
    for name in ("rustls", "aws-lc-sys", "talos-proto", "tokio"):
        if name not in names:
            problems.append(f"the bill lacks {name}")
    for name in names & {"proptest", "loom", "rcgen", "ring"}:
        problems.append(f"the bill has {name}, which isn't in the binary")
    refs = {one["bom-ref"] for one in bill["components"]} | {bill["metadata"]["component"]["bom-ref"]}
    if {one["ref"] for one in bill["dependencies"]} != refs or not all(set(one["dependsOn"]) <= refs for one in bill["dependencies"]):
        problems.append("the bill's dependencies aren't its components")
    problems += [f"{one['name']}: no licence" for one in bill["components"] if "licenses" not in one]
    return problems


def unsafe_code():
    """Every crate of ours forbids it at its root."""
    metadata = subprocess.run(["cargo", "metadata", "--format-version=1", "--locked", "--no-deps"], cwd=REPO, check=True,
                              capture_output=True, text=True).stdout
    problems = []
    for package in json.loads(metadata)["packages"]:
        for target in package["targets"]:
            built = {"lib", "bin", "proc-macro"} & set(target["kind"])
            if built and "#![forbid(unsafe_code)]" not in Path(target["src_path"]).read_text():
                # A loader of counters and the like may need it: then it says so, and in which words.
                problems.append(f"{target['src_path']}: doesn't forbid unsafe code")
    return problems


def image():
    """The Dockerfile: no engine is at hand, so its instructions are looked at, and whether the context is complete."""
    lines = [line for line in (REPO / "Dockerfile").read_text().replace("\\\n", " ").splitlines() if line and line[0] != "#"]
    instructions = [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]
    said = lambda name: [value for instruction, value in instructions if instruction == name]  # noqa: E731
    problems = []

    def must(holds, problem):
        if not holds:
            problems.append(f"Dockerfile: {problem}")

    bases = said("FROM")
    must(len(bases) == 2 and bases[0].endswith(" AS build"), "is to have a stage that builds and one that runs")
    must(all(re.fullmatch(r"[\w./-]+:[\w.-]+( AS build)?", base) and ":latest" not in base for base in bases), "bases need tags")
    must("distroless" in bases[-1], "the last base has a shell")
    must(said("USER") == ["65532:65532"], "USER is to be a number that isn't root")
    last = instructions[[index for index, (name, _) in enumerate(instructions) if name == "FROM"][-1]:]
    must(not [name for name, _ in last if name in ("RUN", "ADD")], "nothing can run in the last stage")
    must(all(value.startswith("--from=build") for name, value in last if name == "COPY"), "only what was built goes in")
    must(json.loads(said("ENTRYPOINT")[0])[0].startswith("/") and isinstance(json.loads(said("CMD")[0]), list), "exec form")
    must(said("HEALTHCHECK") == ["NONE"] and said("STOPSIGNAL") == ["SIGTERM"], "HEALTHCHECK and STOPSIGNAL")
    must("--locked" in said("RUN")[0], "the build is to use the lock")
    version = re.search(r'rust-version = "([\d.]+)"', (REPO / "Cargo.toml").read_text())[1]
    must(bases[0].startswith(f"rust:{version}-"), f"Rust isn't {version}, as Cargo.toml says")
    must(version_of_libc(bases), "the two bases are of different Debian releases: the C library would not fit")
    context = [line[1:] for line in (REPO / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    must("*" in (REPO / ".dockerignore").read_text().splitlines(), ".dockerignore is to keep out what isn't named")
    metadata = subprocess.run(["cargo", "metadata", "--format-version=1", "--locked", "--no-deps"], cwd=REPO, check=True,
                              capture_output=True, text=True).stdout
    needed = {"Cargo.toml", "Cargo.lock"}
    for package in json.loads(metadata)["packages"]:
        for path in [package["manifest_path"], *(target["src_path"] for target in package["targets"])]:
            needed.add(Path(path).relative_to(REPO).parts[0])
    must(needed <= set(context), f".dockerignore keeps out {', '.join(needed - set(context))}")
    return problems


def version_of_libc(bases):
    """Whether both bases are of one Debian release."""
    return "bookworm" in bases[0] and "debian12" in bases[1]


def main():
    problems = [f"{check.__name__}: {problem}" for check in (dependencies, bill_of_materials, unsafe_code, image) for problem in check()]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
