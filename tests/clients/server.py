"""Starts a Talos for a test: with free ports on loopback, new secrets and a temporary database."""

import contextlib
import http.client
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(REPO / "envoy"))

import tools  # noqa: E402 (in envoy/)

PLANES = ("HTTP", "PUBLIC", "METRICS", "AUTHZ")
ISSUER = "https://talos.test"


class ServerFailed(Exception):
    """Talos can't be started or has ended; the text has the end of its log."""


class Server:
    def __init__(self, process, log, ports):
        self.process = process
        self.log = log
        self.ports = ports

    def url(self, plane):
        return f"http://127.0.0.1:{self.ports[plane]}"

    def call(self, method, path, body=None, plane="HTTP"):
        """Sends a request with a JSON body; returns the status and the decoded response, if any."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[plane], timeout=10)
        try:
            headers = {} if body is None else {"content-type": "application/json"}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text else None
        finally:
            connection.close()

    def log_end(self, lines=20):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def check(self):
        """Fails if the process has ended or a request made it panic."""
        if self.process.poll() is not None:
            raise ServerFailed(f"talos ended with exit code {self.process.returncode}:\n{self.log_end()}")
        if "panicked" in self.log.read_text(errors="replace"):
            raise ServerFailed(f"something panicked:\n{self.log_end(60)}")


def free_ports():
    """Returns a free port for each plane, all different."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in PLANES]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return {plane: one.getsockname()[1] for plane, one in zip(PLANES, sockets)}


@contextlib.contextmanager
def running(talos=None, **settings):
    """Starts `talos serve` and yields a ready [`Server`]; ends the process afterwards."""
    talos = talos or tools.target_dir() / "debug" / "talos"
    with tempfile.TemporaryDirectory(prefix="talos-") as directory:
        directory = Path(directory)
        signing = directory / "signing-keys.json"
        command = [talos, "jwk", "generate", "eddsa", "--kid", "it-1", "--jwks", "-o", signing]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        ports = free_ports()
        # The caller's environment may have settings of another Talos, such as its database.
        env = {name: value for name, value in os.environ.items() if not name.startswith("TALOS_")}
        env |= {
            "TALOS_SECRETS_HMAC_CURRENT": secrets.token_hex(32),
            "TALOS_CREDENTIALS_ISSUER": ISSUER,
            "TALOS_CREDENTIALS_DERIVED_TOKENS_JWT_SIGNING_KEYS_URLS": f"file://{signing}",
            "TALOS_DB_DSN": f"sqlite://{directory / 'talos.db'}",
            # The fuzzer sends all requests from one address, so its limits are raised.
            "TALOS_SERVE_PUBLIC_SELF_REVOKE_PER_ADDRESS": "0",
            "TALOS_SERVE_PUBLIC_SELF_REVOKE_TOTAL": "0",
            **settings,
        }
        for plane, port in ports.items():
            env |= {f"TALOS_SERVE_{plane}_HOST": "127.0.0.1", f"TALOS_SERVE_{plane}_PORT": str(port)}
        log = directory / "talos.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [talos, "serve"], cwd=directory, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        server = Server(process, log, ports)
        try:
            wait_until_ready(server)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_until_ready(server):
    deadline = time.monotonic() + 30
    while True:
        server.check()
        with contextlib.suppress(OSError, http.client.HTTPException):
            if server.call("GET", "/health/ready", plane="METRICS")[0] == 200:
                return
        if time.monotonic() > deadline:
            raise ServerFailed(f"talos isn't ready after 30 seconds:\n{server.log_end()}")
        time.sleep(0.05)
