#!/usr/bin/env python3
"""Supply chain tests: licences, sources, banned packages, bill of materials, unsafe code and the container image."""

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
    """Runs cargo-deny with a configuration, without the check of advisories, which needs a network."""
    command = [tools.ensure_cargo_deny(), "--offline", "--locked", "--config", config, "check", "bans", "licenses", "sources"]
    return subprocess.run(command, cwd=REPO, capture_output=True, text=True)


def dependencies():
    """Checks deny.toml, and that it finds violations."""
    # Also fetches the packages that only other platforms need.
    subprocess.run(["cargo", "fetch", "--quiet", "--locked"], cwd=REPO, check=True)
    done = cargo_deny(REPO / "deny.toml")
    problems = [] if done.returncode == 0 else [done.stderr]
    text = (REPO / "deny.toml").read_text()
    for old, new in (('{ crate = "ring" }', '{ crate = "hmac" }'), ('    "MIT",\n', ""), ('"MIT"', '"GPL-3.0"')):
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
            file.write(text.replace(old, new))
            file.flush()
            if text.replace(old, new) == text or cargo_deny(file.name).returncode == 0:
                problems.append(f"cargo-deny allows {new or 'a licence that was removed from the list'}")
    return problems


def bill_of_materials():
    """Checks that the bill of materials is valid CycloneDX, complete and reproducible."""
    first, second = (subprocess.run([REPO / "supply" / "sbom"], check=True, capture_output=True).stdout for _ in range(2))
    if first != second:
        return ["two bills of the same Cargo.lock differ"]
    bill = json.loads(first)
    schemas = {path.name: json.loads(path.read_text()) for path in tools.ensure_cyclonedx_schemas().glob("*.schema.json")}
    schema = schemas["bom-1.6.SNAPSHOT.schema.json"]
    registry = Registry().with_resources((one["$id"], Resource.from_contents(one)) for one in schemas.values() if "$id" in one)
    problems = [error.message for error in jsonschema.Draft7Validator(schema, registry=registry).iter_errors(bill)]
    names = {one["name"] for one in bill["components"]}
    scripts = json.loads((REPO / "console" / "packages.json").read_text())
    listed = {file for one in scripts for file in one["files"].values()}
    if listed != {path.name for path in (REPO / "console" / "web" / "vendor").iterdir()}:
        problems.append("console/packages.json lists other files than console/web/vendor has")
    for name in ("rustls", "aws-lc-sys", "talos-proto", "tokio", *(one["name"] for one in scripts)):
        if name not in names:
            problems.append(f"the bill is missing {name}")
    for name in names & {"proptest", "loom", "rcgen", "ring"}:
        problems.append(f"the bill has {name}, which isn't in the binary")
    refs = {one["bom-ref"] for one in bill["components"]} | {bill["metadata"]["component"]["bom-ref"]}
    if {one["ref"] for one in bill["dependencies"]} != refs or not all(set(one["dependsOn"]) <= refs for one in bill["dependencies"]):
        problems.append("the bill's dependencies aren't its components")
    problems += [f"{one['name']}: no licence" for one in bill["components"] if "licenses" not in one]
    return problems


def unsafe_code():
    """Checks that every crate of the workspace forbids unsafe code."""
    metadata = subprocess.run(["cargo", "metadata", "--format-version=1", "--locked", "--no-deps"], cwd=REPO, check=True,
                              capture_output=True, text=True).stdout
    problems = []
    for package in json.loads(metadata)["packages"]:
        for target in package["targets"]:
            built = {"lib", "bin", "proc-macro"} & set(target["kind"])
            if built and "#![forbid(unsafe_code)]" not in Path(target["src_path"]).read_text():
                problems.append(f"{target['src_path']}: doesn't forbid unsafe code")
    return problems


def image():
    """Checks the Dockerfile's instructions, without building it, and that the build context is complete."""
    lines = [line for line in (REPO / "Dockerfile").read_text().replace("\\\n", " ").splitlines() if line and line[0] != "#"]
    instructions = [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]
    values_of = lambda name: [value for instruction, value in instructions if instruction == name]  # noqa: E731
    problems = []

    def must(condition, problem):
        if not condition:
            problems.append(f"Dockerfile: {problem}")

    bases = values_of("FROM")
    must(len(bases) == 2 and bases[0].endswith(" AS build"), "must have a build stage and a final stage")
    must(all(re.fullmatch(r"[\w./-]+:[\w.-]+( AS build)?", base) and ":latest" not in base for base in bases), "base images must have a tag")
    must("distroless" in bases[-1], "the final image must not have a shell")
    must(values_of("USER") == ["65532:65532"], "USER must be numeric and not root")
    last = instructions[[index for index, (name, _) in enumerate(instructions) if name == "FROM"][-1]:]
    must(not [name for name, _ in last if name in ("RUN", "ADD")], "the final stage must not run commands")
    must(all(value.startswith("--from=build") for name, value in last if name == "COPY"), "the final stage must only copy from the build stage")
    must(json.loads(values_of("ENTRYPOINT")[0])[0].startswith("/") and isinstance(json.loads(values_of("CMD")[0]), list), "ENTRYPOINT and CMD must have the exec form")
    must(values_of("HEALTHCHECK")[0].endswith('CMD ["/usr/local/bin/talos", "health"]'), "HEALTHCHECK must need no shell")
    must(values_of("STOPSIGNAL") == ["SIGTERM"], "STOPSIGNAL must be SIGTERM")
    must("--locked" in values_of("RUN")[0], "the build must use --locked")
    version = re.search(r'rust-version = "([\d.]+)"', (REPO / "Cargo.toml").read_text())[1]
    must(bases[0].startswith(f"rust:{version}-"), f"the Rust version must be {version}, as in Cargo.toml")
    must(is_same_debian(bases), "both base images must have the same Debian release, because of the C library")
    context = [line[1:] for line in (REPO / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    must("*" in (REPO / ".dockerignore").read_text().splitlines(), ".dockerignore must exclude everything by default")
    metadata = subprocess.run(["cargo", "metadata", "--format-version=1", "--locked", "--no-deps"], cwd=REPO, check=True,
                              capture_output=True, text=True).stdout
    needed = {"Cargo.toml", "Cargo.lock"}
    for package in json.loads(metadata)["packages"]:
        for path in [package["manifest_path"], *(target["src_path"] for target in package["targets"])]:
            needed.add(Path(path).relative_to(REPO).parts[0])
    must(needed <= set(context), f".dockerignore excludes {', '.join(needed - set(context))}")
    return problems


def is_same_debian(bases):
    """Returns True if both base images have the same Debian release."""
    return "bookworm" in bases[0] and "debian12" in bases[1]


def main():
    problems = [f"{check.__name__}: {problem}" for check in (dependencies, bill_of_materials, unsafe_code, image) for problem in check()]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
