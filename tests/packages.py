#!/usr/bin/env python3
"""Tests the files of a release: packs the debug binary, unpacks it and starts it from what was installed.

Whatever needs a program that isn't here (systemd-analyze, dpkg-deb, helm) is left out and said so.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO / "envoy"))

import tools  # noqa: E402 (it lies beside the demo, which uses it, too)

TALOS = tools.target_dir() / "debug" / "talos"
# Files that each package has.
FILES = [
    "usr/bin/talos",
    "usr/lib/systemd/system/talos.service",
    "usr/lib/sysusers.d/talos.conf",
    "etc/talos/talos.yaml",
    "usr/share/man/man1/talos.1.gz",
    "usr/share/man/man1/talos-keys-issue.1.gz",
    "usr/share/bash-completion/completions/talos",
    "usr/share/doc/talos/LICENSE",
]
START_SECONDS = 20


class Failed(Exception):
    """Something of the release is wrong; the text says what."""


def run(*command, **options):
    """Runs a program to its end; returns its output."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    if done.returncode != 0:
        raise Failed(f"`{' '.join(map(str, command))}` ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def unpack_deb(package, root):
    """Unpacks the data of a package, by the system's own tool where there is one."""
    if shutil.which("dpkg-deb"):
        run("dpkg-deb", "--extract", package, root)
        control = run("dpkg-deb", "--field", package)
        for field in ("Package: talos", "Architecture: amd64"):
            if field not in control:
                raise Failed(f"{package.name}: no {field} in\n{control}")
        return
    print("dpkg-deb isn't here: the deb is not unpacked")
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data.tar"
        content = package.read_bytes()
        data.write_bytes(content[content.index(b"data.tar") + 60 :])
        with tarfile.open(data) as archive:
            archive.extractall(root)


def serve(root, work):
    """Starts the installed program with the installed settings, on ports of its own, until it is healthy."""
    ports = {plane: free_port() for plane in ("HTTP", "PUBLIC", "METRICS")}
    env = {name: value for name, value in os.environ.items() if not name.startswith("TALOS_")}
    env |= {f"TALOS_SERVE_{plane}_PORT": str(port) for plane, port in ports.items()}
    env |= {
        "TALOS_SECRETS_HMAC_CURRENT": "a-secret-for-this-test-alone-0123456789",
        "TALOS_SERVE_AUTHZ_SOCKET": str(work / "authz.sock"),
        "TALOS_DB_DSN": f"sqlite://{work}/talos.db",
    }
    talos = root / "usr/bin/talos"
    run(talos, "config", "check", root / "etc/talos/talos.yaml", env=env)
    log = (work / "log").open("w+")
    server = subprocess.Popen([talos, "serve", "--config", root / "etc/talos/talos.yaml"], env=env, cwd=work, stderr=log)
    try:
        deadline = time.monotonic() + START_SECONDS
        while subprocess.run([talos, "health"], env=env, capture_output=True).returncode != 0:
            if server.poll() is not None or time.monotonic() > deadline:
                log.seek(0)
                raise Failed(f"the installed program doesn't get healthy:\n{log.read()}")
            time.sleep(0.1)
        run(talos, "keys", "issue", "first", "--actor", "me", "-q", "-e", f"http://127.0.0.1:{ports['HTTP']}", env=env)
    finally:
        server.terminate()
        if server.wait(timeout=START_SECONDS) != 0:
            raise Failed(f"the installed program ended with {server.returncode}")


def unit(root):
    """Holds that systemd understands the unit, and that nothing of its sandbox was lost."""
    text = (root / "usr/lib/systemd/system/talos.service").read_text()
    for line in ["NoNewPrivileges=yes", "ProtectSystem=strict", "CapabilityBoundingSet=", "User=talos"]:
        if f"\n{line}\n" not in text:
            raise Failed(f"talos.service: no {line}")
    if not shutil.which("systemd-analyze"):
        print("systemd-analyze isn't here: the unit is not verified")
        return
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / "talos.service"
        local.write_text(text.replace("/usr/bin/talos", str(root / "usr/bin/talos")))
        done = subprocess.run(["systemd-analyze", "verify", local], capture_output=True, text=True)
        # Other warnings are about the machine on which this runs, and not about the unit.
        ours = [line for line in done.stderr.splitlines() if "talos.service" in line and "man talos" not in line]
        if ours:
            raise Failed("\n".join(ours))


def chart(output):
    """Packs the chart as the release does; its version is that of the program."""
    helm = tools.ensure_helm()
    run(helm, "package", REPO / "helm/talos", "--destination", output)
    [package] = output.glob("talos-*.tgz")
    if not re.fullmatch(r"talos-\d+\.\d+\.\d+\S*\.tgz", package.name):
        raise Failed(f"the chart's package is called {package.name}")


def compose():
    """Starts the program with the environment of the quickstart's compose file."""
    text = (REPO / "packaging/compose.yaml").read_text()
    pairs = re.findall(r'^      (TALOS_\w+): "?([^"\n]+)"?$', text, re.M)
    with tempfile.TemporaryDirectory() as work:
        env = {name: value for name, value in os.environ.items() if not name.startswith("TALOS_")} | dict(pairs)
        env |= {"TALOS_SECRETS_HMAC_CURRENT": "a-secret-for-this-test-alone-0123456789", "TALOS_DB_DSN": f"sqlite://{work}/talos.db"}
        for plane in ("HTTP", "PUBLIC", "METRICS", "AUTHZ"):
            env[f"TALOS_SERVE_{plane}_PORT"] = str(free_port())
        server = subprocess.Popen([TALOS, "serve"], env=env, cwd=work, stderr=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + START_SECONDS
            while subprocess.run([TALOS, "health"], env=env, capture_output=True).returncode != 0:
                if server.poll() is not None or time.monotonic() > deadline:
                    raise Failed("packaging/compose.yaml: the program doesn't get healthy")
                time.sleep(0.1)
        finally:
            server.terminate()
            server.wait(timeout=START_SECONDS)


def workflow():
    """Holds that the release's workflow names no registry: one variable says where images live."""
    text = (REPO / ".github/workflows/release.yml").read_text()
    for registry in ("ghcr.io", "docker.io", "quay.io", "gcr.io/", "pkg.dev"):
        for line in text.splitlines():
            if registry in line and not line.strip().startswith("#"):
                raise Failed(f"release.yml: names a registry: {line.strip()}")
    if "vars.IMAGE_REGISTRY" not in text:
        raise Failed("release.yml: no vars.IMAGE_REGISTRY")


def main():
    began = time.monotonic()
    try:
        workflow()
        with tempfile.TemporaryDirectory(prefix="talos-packages-") as folder:
            output, root, work = Path(folder) / "dist", Path(folder) / "root", Path(folder) / "work"
            root.mkdir()
            work.mkdir()
            run(sys.executable, REPO / "packaging/build.py", "--binary", TALOS, "--output", output, "--compression", "none")
            run("sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS", cwd=output)
            [package] = output.glob("*.deb")
            [archive] = output.glob("*.tar")
            with tarfile.open(archive) as packed:
                names = packed.getnames()
            for name in ("bin/talos", "man/man1/talos.1.gz", "completions/talos.zsh", "systemd/talos.service", "LICENSE"):
                if not any(found.endswith(f"/{name}") for found in names):
                    raise Failed(f"{archive.name}: no {name}")
            archive.unlink()
            unpack_deb(package, root)
            for file in FILES:
                if not (root / file).is_file():
                    raise Failed(f"{package.name}: no {file}")
            unit(root)
            serve(root, work)
            chart(output)
        compose()
    except (Failed, tools.ToolError) as failure:
        print(f"tests/packages.py: {failure}", file=sys.stderr)
        return 1
    print(json.dumps({"seconds": round(time.monotonic() - began, 1)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
