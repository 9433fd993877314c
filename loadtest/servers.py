"""Processes of a comparison: Talos, the floor, Envoy and the load generator."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

# Time that a server may take to start, in seconds.
START_TIMEOUT_SECONDS = 30


class LoadError(Exception):
    """A round failed or had a wrong response."""


def free_port():
    """Returns a port that is currently free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def cores():
    """Returns one core for the server and the others for the generator; both use the same if there is only one."""
    available = sorted(os.sched_getaffinity(0))
    return {available[0]}, set(available[1:]) or set(available)


def environment(more):
    """Returns this process's environment with all TALOS_ variables replaced by the given ones."""
    return {**{key: value for key, value in os.environ.items() if not key.startswith("TALOS_")}, **(more or {})}


class Processes:
    """Starts processes, and ends them."""

    def __init__(self, directory, binaries):
        self.directory = Path(directory)
        self.binaries = binaries
        self.running = []

    def start(self, name, command, env=None, cpus=None):
        """Starts a server; its output goes to a log file with its name."""
        log = self.directory / f"{name}.log"
        pin = (lambda: os.sched_setaffinity(0, cpus)) if cpus else None
        with log.open("wb") as out:
            process = subprocess.Popen(
                [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                cwd=self.directory, env=environment(env), preexec_fn=pin,
            )
        self.running.append((name, process, log))
        return process

    def wait_until(self, what, condition):
        """Waits for a condition; fails if a server ends meanwhile."""
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not condition():
            for name, process, log in self.running:
                if process.poll() is not None:
                    end = log.read_text(errors="replace")[-1500:]
                    raise LoadError(f"{name} ended unexpectedly (exit code {process.returncode}):\n{end}")
            if time.monotonic() > deadline:
                raise LoadError(f"{what}: not within {START_TIMEOUT_SECONDS} s")
            time.sleep(0.02)

    def end(self, only=None):
        """Ends one process, or all in reverse order."""
        for entry in reversed(self.running[:]):
            name, process, _ = entry
            if only is not None and process is not only:
                continue
            self.running.remove(entry)
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGTERM)
                try:
                    process.wait(timeout=20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def generate(self, *arguments, cpus=None, env=None):
        """Runs one round of the generator and returns its JSON."""
        pin = (lambda: os.sched_setaffinity(0, cpus)) if cpus else None
        command = [str(self.binaries / "loadtest"), *map(str, arguments)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=pin,
                              cwd=self.directory, env=environment(env))
        if done.returncode != 0:
            raise LoadError(f"`{' '.join(command)}`: {done.stderr.strip()}")
        return json.loads(done.stdout)


def connects(address):
    """Returns True if a server listens at an address."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as probe:
        probe.settimeout(1)
        try:
            probe.connect(address)
            return True
        except OSError:
            return False


def status(port, path):
    """Returns the status of a GET request, None without a response."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:
        return None
    finally:
        connection.close()


class Talos:
    """A Talos server, by default with a new database."""

    label = "talos"
    always_ok = False

    def __init__(self, processes, name="talos", unix=False, cpus=None, dsn=None, env=None):
        self.processes = processes
        binary = processes.binaries / "talos"
        self.admin, self.public, self.metrics, port = (free_port() for _ in range(4))
        key_set = processes.directory / f"{name}-keys.json"
        generate = [str(binary), "jwk", "generate", "eddsa", "--kid", "load-1", "--jwks", "-o", str(key_set)]
        if not key_set.exists():
            subprocess.run(generate, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        environment = {
            "TALOS_SECRETS_HMAC_CURRENT": "an-hmac-secret-for-the-load-test-only-0123456789",
            "TALOS_CREDENTIALS_ISSUER": "https://keys.example.com",
            "TALOS_CREDENTIALS_DERIVED_TOKENS_JWT_SIGNING_KEYS_URLS": f"file://{key_set}",
            "TALOS_DB_DSN": dsn or f"sqlite://{processes.directory / name}.db",
            "TALOS_SERVE_HTTP_PORT": str(self.admin),
            "TALOS_SERVE_PUBLIC_HOST": "127.0.0.1",
            "TALOS_SERVE_PUBLIC_PORT": str(self.public),
            "TALOS_SERVE_METRICS_PORT": str(self.metrics),
            "TALOS_SERVE_AUTHZ_PORT": str(port),
            # All requests come from one address, so its limits are raised.
            "TALOS_SERVE_PUBLIC_SELF_REVOKE_PER_ADDRESS": "1000000",
            "TALOS_SERVE_PUBLIC_SELF_REVOKE_TOTAL": "1000000",
            **(env or {}),
        }
        self.target, self.port = f"127.0.0.1:{port}", port
        address = ("127.0.0.1", port)
        if unix:
            address = str(processes.directory / f"{name}.sock")
            environment["TALOS_SERVE_AUTHZ_SOCKET"] = address
            self.target = f"unix:{address}"
        self.environment = environment
        self.process = processes.start(name, [binary, "serve"], environment, cpus)
        processes.wait_until("Talos is ready", lambda: status(self.metrics, "/health/ready") == 200 and connects(address))

    @property
    def pid(self):
        return self.process.pid

    def issue(self, count, revoked=0):
        """Issues keys and returns the file that has them."""
        keys = self.processes.directory / f"{self.port}-{count}.json"
        self.processes.generate("keys", "--admin", f"127.0.0.1:{self.admin}", "--count", count, "--revoked", revoked,
                                "--out", keys)
        return keys

    def metric(self, name):
        """Returns the value of a metric without labels."""
        connection = http.client.HTTPConnection("127.0.0.1", self.metrics, timeout=5)
        connection.request("GET", "/metrics")
        for line in connection.getresponse().read().decode().splitlines():
            if line.startswith(name + " "):
                return float(line.rsplit(" ", 1)[1])
        return None


class Floor:
    """The floor: a server that allows everything."""

    label = "floor"
    always_ok = True

    def __init__(self, processes, name="floor", unix=False, cpus=None):
        self.port = free_port()
        command = [processes.binaries / "floor", "--listen", f"127.0.0.1:{self.port}"]
        self.target, address = f"127.0.0.1:{self.port}", ("127.0.0.1", self.port)
        if unix:
            address = str(processes.directory / f"{name}.sock")
            command = [processes.binaries / "floor", "--socket", address]
            self.target = f"unix:{address}"
        self.process = processes.start(name, command, cpus=cpus)
        processes.wait_until("the floor listens", lambda: connects(address))

    @property
    def pid(self):
        return self.process.pid
