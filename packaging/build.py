#!/usr/bin/env python3
"""Makes the files of a release from a binary: a tarball, a deb and an rpm, with checksums.

  packaging/build.py --binary target/release/talos --output dist
  packaging/build.py --binary target/aarch64-unknown-linux-musl/release/talos --arch aarch64 --tool target/release/talos --output dist

Manual pages and completions are printed by the program itself: by --tool, if the binary is for another machine. The rpm
needs `rpmbuild`; without it, that package is left out and said so.
"""

import argparse
import gzip
import hashlib
import io
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
PACKAGING = REPO / "packaging"
DEB_ARCH = {"x86_64": "amd64", "aarch64": "arm64"}
SUMMARY = "API keys at the Envoy edge: an ext_authz server"
DESCRIPTION = "Talos checks API keys for Envoy, and gives the upstream a short-lived signed token in place of the key."
COMPLETIONS = {
    "bash": "usr/share/bash-completion/completions/talos",
    "zsh": "usr/share/zsh/vendor-completions/_talos",
    "fish": "usr/share/fish/vendor_completions.d/talos.fish",
}
CONFIGURATION = ["etc/talos/talos.yaml"]


class BuildError(Exception):
    """A file of the release can't be made; the text says why."""


def version():
    """The version in Cargo.toml, which the chart must have, too."""
    manifest = (REPO / "Cargo.toml").read_text()
    found = re.search(r'^\[package\].*?^version = "([^"]+)"', manifest, re.M | re.S)[1]
    chart = (REPO / "helm/talos/Chart.yaml").read_text()
    for key in ("version", "appVersion"):
        own = re.search(rf"^{key}: (\S+)$", chart, re.M)[1].strip('"')
        if own != found:
            raise BuildError(f"helm/talos/Chart.yaml: {key} is {own}, and Cargo.toml has {found}")
    return found


def run(*command):
    """Runs a program; returns its output."""
    done = subprocess.run([str(word) for word in command], capture_output=True)
    if done.returncode != 0:
        raise BuildError(f"{command[0]}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def stage(binary, tool, root):
    """Lays out the files of a package as they are installed."""
    def put(path, content, mode=0o644):
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        file.chmod(mode)

    target = root / "usr/bin/talos"
    target.parent.mkdir(parents=True)
    shutil.copyfile(binary, target)
    target.chmod(0o755)
    put("usr/lib/systemd/system/talos.service", (PACKAGING / "talos.service").read_bytes())
    put("usr/lib/sysusers.d/talos.conf", (PACKAGING / "talos.sysusers").read_bytes())
    put("etc/talos/talos.yaml", (PACKAGING / "talos.yaml").read_bytes(), 0o640)
    for name in ("LICENSE", "README.md", "CHANGELOG.md", "SECURITY.md"):
        put(f"usr/share/doc/talos/{name}", (REPO / name).read_bytes())
    for shell, path in COMPLETIONS.items():
        put(path, run(tool, "completions", shell))
    with tempfile.TemporaryDirectory() as pages:
        run(tool, "reference", "man", pages)
        for page in sorted(Path(pages).iterdir()):
            put(f"usr/share/man/man1/{page.name}.gz", gzip.compress(page.read_bytes(), mtime=0))


def tar(root, path, prefix="", compression="gz"):
    """Packs a folder: sorted, owned by root and of one date, so that equal files give an equal archive."""
    def plain(entry):
        entry.uid = entry.gid = entry.mtime = 0
        entry.uname = entry.gname = "root"
        return entry

    options = {"compresslevel": 9} if compression == "gz" else {}
    with tarfile.open(path, f"w:{compression}", format=tarfile.GNU_FORMAT, **options) as archive:
        for file in sorted(root.rglob("*")):
            archive.add(file, f"{prefix}{file.relative_to(root)}", recursive=False, filter=plain)


def tarball(root, name, output, compression):
    """Packs binary, manual pages, completions and unit in one folder of the release's name."""
    suffix = ".tar.gz" if compression == "gz" else ".tar"
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        for source, place in [("usr/bin", "bin"), ("usr/share/man", "man"), ("usr/lib/systemd/system", "systemd"), ("usr/share/doc/talos", ".")]:
            if (root / source).exists():
                shutil.copytree(root / source, top / place, dirs_exist_ok=True)
        for shell, path in COMPLETIONS.items():
            (top / "completions").mkdir(exist_ok=True)
            shutil.copyfile(root / path, top / "completions" / f"talos.{shell}")
        tar(top, output / f"{name}{suffix}", f"{name}/", compression)
    return output / f"{name}{suffix}"


def deb(root, release, arch, output, compression):
    """Packs a Debian package: an `ar` of control and data."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        control = folder / "control"
        control.mkdir()
        size = sum(file.stat().st_size for file in root.rglob("*") if file.is_file()) // 1024
        (control / "control").write_text(
            f"Package: talos\nVersion: {release}\nArchitecture: {DEB_ARCH[arch]}\nMaintainer: Talos for Envoy\nInstalled-Size: {size}\n"
            f"Recommends: ca-certificates\nSection: net\nPriority: optional\nDescription: {SUMMARY}\n {DESCRIPTION}\n"
        )
        (control / "conffiles").write_text("".join(f"/{path}\n" for path in CONFIGURATION))
        for script in ("postinst", "prerm"):
            shutil.copyfile(PACKAGING / script, control / script)
            (control / script).chmod(0o755)
        suffix = ".gz" if compression == "gz" else ""
        tar(control, folder / "control.tar.gz", "./")
        tar(root, folder / f"data.tar{suffix}", "./", compression)
        path = output / f"talos_{release}_{DEB_ARCH[arch]}.deb"
        with path.open("wb") as archive:
            archive.write(b"!<arch>\n")
            members = [("debian-binary", io.BytesIO(b"2.0\n"), 4)]
            for name in ("control.tar.gz", f"data.tar{suffix}"):
                members.append((name, (folder / name).open("rb"), (folder / name).stat().st_size))
            for name, content, length in members:
                with content:
                    archive.write(f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{length:<10}`\n".encode())
                    shutil.copyfileobj(content, archive)
                archive.write(b"\n" * (length % 2))
    return path


def rpm(root, release, arch, output):
    """Packs an RPM package with `rpmbuild`; None where there is none."""
    if shutil.which("rpmbuild") is None:
        print("no rpm: there is no rpmbuild", file=sys.stderr)
        return None
    files = [f"/{file.relative_to(root)}" for file in sorted(root.rglob("*")) if file.is_file()]
    marked = [f"%config(noreplace) {path}" if path[1:] in CONFIGURATION else path for path in files]
    script = lambda name: (PACKAGING / name).read_text().split("\n", 1)[1]  # noqa: E731
    spec = (
        f"Name: talos\nVersion: {release}\nRelease: 1\nSummary: {SUMMARY}\nLicense: Apache-2.0\nAutoReqProv: no\n"
        f"%define __strip /bin/true\n%define _build_id_links none\n%description\n{DESCRIPTION}\n"
        f"%install\ncp -a {root}/. %{{buildroot}}/\n%post\n{script('postinst')}\n%preun\n{script('prerm')}\n%files\n" + "\n".join(marked) + "\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "talos.spec").write_text(spec)
        run("rpmbuild", "-bb", "--target", arch, "--define", f"_topdir {folder}", "--define", f"_rpmdir {output}",
            "--define", "_rpmfilename %{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}.rpm", f"{folder}/talos.spec")
    return output / f"talos-{release}-1.{arch}.rpm"


def checksums(output):
    """Writes SHA256SUMS of everything in the folder, in the form of `sha256sum -c`."""
    lines = []
    for file in sorted(output.iterdir()):
        if file.is_file() and file.name != "SHA256SUMS":
            digest = hashlib.sha256()
            with file.open("rb") as content:
                for part in iter(lambda: content.read(1 << 20), b""):
                    digest.update(part)
            lines.append(f"{digest.hexdigest()}  {file.name}\n")
    (output / "SHA256SUMS").write_text("".join(lines))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, help="the program to pack")
    parser.add_argument("--tool", type=Path, help="a program that runs here, for manual pages and completions")
    parser.add_argument("--arch", default="x86_64", choices=sorted(DEB_ARCH), help="its machine (default: %(default)s)")
    parser.add_argument("--system", default="linux", choices=["linux", "macos"], help="its system; packages are for linux alone")
    parser.add_argument("--output", type=Path, required=True, help="folder for the files")
    parser.add_argument("--compression", default="gz", choices=["gz", "none"], help="none: in a hurry")
    parser.add_argument("--checksums", action="store_true", help="only write SHA256SUMS of the folder")
    options = parser.parse_args()
    output = options.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    try:
        if not options.checksums:
            release, compression = version(), options.compression.replace("none", "")
            with tempfile.TemporaryDirectory() as folder:
                root = Path(folder) / "root"
                stage(options.binary, (options.tool or options.binary).resolve(), root)
                made = [tarball(root, f"talos-{release}-{options.arch}-{options.system}", output, compression)]
                if options.system == "linux":
                    made += [deb(root, release, options.arch, output, compression), rpm(root, release, options.arch, output)]
            print("\n".join(str(path) for path in made if path))
        checksums(output)
    except (BuildError, OSError) as error:
        print(f"packaging/build.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
