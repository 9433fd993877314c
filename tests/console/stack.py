"""A Talos with an Envoy and an upstream of its own, on free ports of loopback, for tests of the console."""

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
from urllib.parse import urlsplit

REPO = Path(__file__).resolve().parent.parent.parent
PLANES = ["http", "public", "metrics", "authz"]


class StackError(Exception):
    """The stack can't be started, or a call of its API failed; the text says why."""


def free_ports(count):
    """Returns ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def wait_until(what, condition, seconds=30):
    """Polls a condition until it is true, or fails."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if condition():
                return
        if time.monotonic() > deadline:
            raise StackError(f"timed out after {seconds} s, waiting for {what}")
        time.sleep(0.05)


def call(method, url, body=None, headers=None, timeout=30):
    """Sends a request; returns its status and its body as text."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)
    with contextlib.closing(connection):
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        text = None if body is None else json.dumps(body)
        headers = {**({"content-type": "application/json"} if text else {}), **(headers or {})}
        connection.request(method, path, text, headers)
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")


class Stack:
    """The processes. A context manager, so that they end with it."""

    def __init__(self, talos, envoy=None, settings=None, auth=None):
        self.talos, self.envoy_program = talos, envoy
        self.settings, self.auth = settings or {}, auth
        self.folder = tempfile.TemporaryDirectory(prefix="talos-console-")
        self.path = Path(self.folder.name)
        self.running = []
        ports = free_ports(7)
        self.ports = dict(zip(PLANES, ports))
        self.envoy_port, self.envoy_admin, self.upstream_port = ports[4:]
        self.admin, self.public = (f"http://127.0.0.1:{self.ports[plane]}" for plane in ("http", "public"))
        self.metrics = f"http://127.0.0.1:{self.ports['metrics']}"
        self.edge = f"http://127.0.0.1:{self.envoy_port}"
        self.database = self.path / "talos.db"

    def __enter__(self):
        try:
            self.start_talos()
            if self.envoy_program is not None:
                self.start_envoy()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in reversed(self.running):
            process.terminate()
        for process in self.running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=10)
            if process.poll() is None:
                process.kill()
                process.wait()
        self.running.clear()
        self.folder.cleanup()

    def start(self, name, command, env=None):
        with (self.path / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, cwd=self.path
            )
        self.running.append(process)

    def log(self, name):
        return (self.path / f"{name}.log").read_text(errors="replace")

    def start_talos(self):
        jwks = self.path / "signing-key.jwks.json"
        command = [self.talos, "jwk", "generate", "eddsa", "--kid", "console-1", "--jwks", "-o", jwks]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        serve = {plane: {"host": "127.0.0.1", "port": port} for plane, port in self.ports.items()}
        if self.auth:
            serve["http"]["auth"] = self.auth
        # A limit of requests for each client, which the tests of the holder's page would reach.
        serve["public"]["self_revoke"] = {"per_address": 0, "total": 0}
        settings = {
            "serve": serve,
            "credentials": {
                "issuer": self.public,
                "api_keys": {"prefix": {"public_current": "pub"}},
                "derived_tokens": {"jwt": {"signing_key_id": "console-1", "signing_keys": {"urls": [f"file://{jwks}"]}}},
            },
            "usage": {"flush_interval": "1s"},
            **self.settings,
        }
        config = self.path / "talos.yaml"
        config.write_text(json.dumps(settings))  # JSON is YAML
        env = {name: value for name, value in os.environ.items() if not name.startswith("TALOS_")}
        env |= {"TALOS_SECRETS_HMAC_CURRENT": secrets.token_hex(32), "TALOS_DB_DSN": f"sqlite://{self.database}"}
        self.start("talos", [self.talos, "serve", "--config", config], env)
        try:
            wait_until("Talos", lambda: call("GET", self.metrics + "/health/ready")[0] == 200)
        except StackError as error:
            raise StackError(f"{error}\n{self.log('talos')[-2000:]}") from None

    def start_envoy(self):
        """Starts the upstream, and Envoy with the configuration of the demo on other ports."""
        text = (REPO / "envoy" / "envoy.yaml").read_text()
        for port, own in [
            (10000, self.envoy_port), (10001, self.envoy_admin), (10080, self.upstream_port), (4423, self.ports["authz"])
        ]:
            text = text.replace(f"port_value: {port} ", f"port_value: {own} ")
        config = self.path / "envoy.yaml"
        config.write_text(text)
        self.start("upstream", [sys.executable, REPO / "envoy" / "upstream.py", "--port", self.upstream_port])
        command = [self.envoy_program, "--config-path", config, "--disable-hot-restart", "--log-level", "warning"]
        self.start("envoy", [*command, "--concurrency", "1"])
        healthy = f"http://127.0.0.1:{self.envoy_admin}/stats?filter=^cluster.talos_authz.membership_healthy$"
        wait_until("Envoy to find Talos healthy", lambda: ": 1" in call("GET", healthy)[1])

    def api(self, method, path, body=None, headers=None):
        """Calls the admin plane; returns its answer, or fails."""
        status, text = call(method, self.admin + path, body, headers)
        if status >= 400:
            raise StackError(f"{method} {path}: {status} {text}")
        return json.loads(text) if text else {}

    def issue(self, name, actor, **fields):
        """Issues a key; returns it and its secret."""
        body = {"name": name, "actor_id": actor, **fields}
        response = self.api("POST", "/v2alpha1/admin/issuedApiKeys", body)
        return response["issued_api_key"], response["secret"]

    def use(self, secret, path="/hello"):
        """Sends a request with a key through Envoy; returns the status."""
        return call("GET", self.edge + path, headers={"x-api-key": secret})[0]
