"""Runs containers of a rendering on this machine, with the same arguments, environment and files, in a directory."""

import contextlib
import http.client
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import time
from pathlib import Path

import tools

TALOS = tools.target_dir() / "debug" / "talos"
# The accelerator, built with the tests.
MODULES = [tools.target_dir() / "debug" / place / "libtalos_module.so" for place in (".", "deps")]
UPSTREAM = Path(tools.__file__).parent / "upstream.py"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def place_module(directory):
    """Puts the accelerator where Envoy looks for it."""
    found = [module for module in MODULES if module.exists()]
    if not found:
        raise SystemExit("the accelerator isn't built: cargo build -p talos-module")
    directory.mkdir(parents=True, exist_ok=True)
    (directory / MODULES[0].name).symlink_to(found[0])


class Pod:
    """A pod's files in a directory: its ConfigMaps, generated Secrets and empty directories."""

    def __init__(self, objects, template, folder, secret=None, replaced=()):
        self.template = template
        self.folder = folder
        self.secret = secret or {}
        self.replaced = list(replaced)
        maps = {one["metadata"]["name"]: one["data"] for one in objects if one["kind"] == "ConfigMap"}
        spec = template["spec"]
        paths = {}
        for container in spec.get("initContainers", []) + spec["containers"]:
            for mount in container.get("volumeMounts", []):
                paths.setdefault(mount["name"], mount["mountPath"])
        # Longer paths first, as one path may be a prefix of another.
        for path in sorted(set(paths.values()) - {"/tmp"}, key=len, reverse=True):
            self.replaced.append((path, f"{folder}{path}"))
        for volume in spec.get("volumes", []):
            place = Path(f"{folder}{paths[volume['name']]}")
            place.mkdir(parents=True, exist_ok=True)
            files = {}
            if "configMap" in volume:
                # One that the chart doesn't create has no files here; `cluster` knows the names of those.
                files = maps.get(volume["configMap"]["name"], {})
            elif "secret" in volume:
                keys = [item["key"] for item in volume["secret"].get("items", [])] or ["tls.crt", "tls.key", "ca.crt"]
                files = {key: self.secret.get(key, "{\"keys\":[]}" if key.endswith("json") else "") for key in keys}
            for name, text in files.items():
                (place / name).write_text(self.localized(text))

        for container in spec["containers"]:
            for variable in container.get("env", []):
                if variable["name"] == "ENVOY_DYNAMIC_MODULES_SEARCH_PATH":
                    place_module(Path(self.localized(variable["value"])))

    def localized(self, text):
        """Returns a text with the paths on this machine."""
        marks = [(old, f"\0{index}\0", new) for index, (old, new) in enumerate(self.replaced)]
        for old, mark, _ in marks:
            text = text.replace(old, mark)
        for _, mark, new in marks:
            text = text.replace(mark, new)
        return text

    def arguments(self, container):
        return [self.localized(argument) for argument in container["args"]]

    def environment(self, container):
        """Returns the container's environment, without other TALOS_ variables."""
        result = {name: value for name, value in os.environ.items() if not name.startswith("TALOS_")}
        database = "postgres://u:p@db/talos"
        stand_in = {"TALOS_SECRETS_HMAC_CURRENT": secrets.token_hex(32), "TALOS_DB_DSN": database, "TALOS_MIGRATE_DSN": database}
        # If the whole file comes from the Secret, the environment has no secret.
        result["TALOS_SECRETS_HMAC_CURRENT"] = stand_in["TALOS_SECRETS_HMAC_CURRENT"]
        for variable in container.get("env", []):
            if "value" in variable:
                value = re.sub(r"\$\((\w+)\)", lambda name: result[name[1]], variable["value"])
                result[variable["name"]] = self.localized(value)
            elif "fieldRef" in variable["valueFrom"]:
                result[variable["name"]] = "pod-1"
            else:
                key = variable["valueFrom"]["secretKeyRef"]["key"]
                result[variable["name"]] = self.secret.get(key) or stand_in.get(variable["name"], secrets.token_hex(32))
        return result


def sidecar(render):
    """Runs the admin plane, and the pod of Envoy and its sidecar; returns the problems."""
    values = {"mode": "sidecar", "secrets": {"signingKeys": "signing-keys.json"}, "gateway": {
        "enabled": True,
        "upstream": {"host": "127.0.0.1", "port": free_port()},
        "routes": [{"prefix": "/open", "policy": {"talos.mode": "off"}}],
    }}
    objects, problems = render(values)
    if problems:
        return problems
    templates = {one["metadata"]["name"]: one["spec"]["template"] for one in objects if one["kind"] == "Deployment"}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(__import__("tempfile").TemporaryDirectory(prefix="talos-pod-", dir="/tmp")))
        keys = subprocess.run([TALOS, "jwk", "generate", "eddsa", "--jwks"], check=True, capture_output=True, text=True)
        secret = {"hmac-current": secrets.token_hex(32), "db-dsn": f"sqlite://{folder}/talos.db",
                  "signing-keys.json": keys.stdout}

        def start(name, command, env):
            log = stack.enter_context((folder / f"{name}.log").open("w+"))
            process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            stack.callback(end, process)

        ports = {port: free_port() for port in (8080, 9901, 9902)}
        replaced = [(f"port_value: {old}", f"port_value: {new}") for old, new in ports.items()]
        own = {}
        for name, workload in (("admin", "edge-talos-admin"), ("sidecar", "edge-talos-gateway")):
            template = templates[workload]
            pod = Pod(objects, template, folder / name, secret, replaced)
            container = next(one for one in template["spec"].get("initContainers", []) + template["spec"]["containers"]
                             if one["name"] == "talos")
            own[name] = {port: free_port() for port in ("HTTP", "METRICS")}
            env = pod.environment(container) | {f"TALOS_SERVE_{plane}_PORT": str(port) for plane, port in own[name].items()}
            start(name, [TALOS, *pod.arguments(container)], env)
            if name == "admin":
                admin = own[name]["HTTP"]
                wait(lambda: status(own["admin"]["METRICS"], "/health/ready") == 200, folder)
        envoy = template["spec"]["containers"][0]
        start("envoy", [tools.ensure_envoy(), *pod.arguments(envoy), "--concurrency", "1"], pod.environment(envoy))
        upstream = str(values["gateway"]["upstream"]["port"])
        start("upstream", ["python3", UPSTREAM, "--port", upstream], dict(os.environ))
        issue = [TALOS, "keys", "issue", "first", "--actor", "me", "-q", "-e", f"http://127.0.0.1:{admin}"]
        key = subprocess.run(issue, check=True, capture_output=True, text=True).stdout.strip()
        edge = ports[8080]
        wait(lambda: status(ports[9902], "/ready") == 200, folder)
        wait(lambda: status(edge, "/", key) == 200, folder)
        for path, credential, wanted in (("/", None, 401), ("/", key, 200), ("/", key + "x", 401), ("/open", None, 200)):
            got = status(edge, path, credential)
            if got != wanted:
                problems.append(f"the sidecar's Envoy answered {path} with {got} instead of {wanted}")
        if "bearer ey" not in body(edge, "/", key).lower():
            problems.append("the upstream received no token")
        if not (folder / "sidecar/run/talos/authz.sock").is_socket():
            problems.append("there is no socket in the volume")
    return problems


def body(port, path, key=None):
    return request(port, path, key)[1]


def status(port, path, key=None):
    try:
        return request(port, path, key)[0]
    except (OSError, http.client.HTTPException):
        return None


def request(port, path, key):
    status, _, text = send(port, "GET", path, {"authorization": f"Bearer {key}"} if key else {})
    return status, text


def send(port, method, path, headers):
    """Sends a request; returns the status, headers and body of the response."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with contextlib.closing(connection):
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return response.status, response.headers, response.read().decode()


def wait(condition, directory):
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            logs = "\n".join(f"{log.name}:\n{log.read_text()[-2000:]}" for log in folder.glob("*.log"))
            raise SystemExit(f"the servers didn't become ready in 60 s:\n{logs}")
        time.sleep(0.05)


def end(process):
    process.terminate()
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
