#!/usr/bin/env python3
"""Tests the chart: lints it, renders every mode and option, and validates the results with schemas, Talos and Envoy.

Tests have no Kubernetes API server, so nothing is installed; the sidecar's pod is run on this machine (`run.py`).
"""

import concurrent.futures
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(REPO / "envoy"))

import tools  # noqa: E402

sys.path.insert(0, str(tools.ensure_kubernetes_validate()))

import cases  # noqa: E402
import cluster  # noqa: E402
import kubernetes_validate  # noqa: E402
import migration  # noqa: E402
import run  # noqa: E402
import schemas  # noqa: E402
import yaml  # noqa: E402

CHART = REPO / "helm" / "talos"
ALERTS = yaml.safe_load((CHART / "alerts.yaml").read_text())["groups"]
KUBERNETES = "1.37"
TALOS = tools.target_dir() / "debug" / "talos"


def helm(*arguments, values):
    """Runs helm with values; returns its exit code and output."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        json.dump(values, file)
        file.flush()
        command = [tools.ensure_helm(), *arguments, "--values", file.name]
        home = {"HELM_CACHE_HOME": tempfile.gettempdir(), "HELM_CONFIG_HOME": tempfile.gettempdir()}
        done = subprocess.run(command, env={**os.environ, **home}, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr


def render(values):
    """Lints and renders; returns the objects and the problems."""
    code, output, error = helm("lint", "--strict", "--quiet", CHART, values=values)
    if code != 0:
        return [], [f"lint: {output}{error}"]
    code, output, error = helm("template", "edge", CHART, "--namespace", "keys", "--kube-version", KUBERNETES, values=values)
    if code != 0:
        return [], [f"template: {error}"]
    return [one for one in yaml.safe_load_all(output) if one], []


def check(name, values):
    """Renders one case; returns the objects and all problems with them."""
    objects, problems = render(values)
    for one in objects:
        group = one["apiVersion"].split("/")[0]
        # There is no schema of Envoy Gateway's objects; `cluster` checks them.
        if not group.endswith((*schemas.FOREIGN, "gateway.envoyproxy.io")):
            try:
                kubernetes_validate.validate(one, KUBERNETES, strict=True)
            except Exception as error:  # its errors have no common base class
                problems.append(f"{one['kind']} {one['metadata']['name']}: {error}")
        if one["kind"] == "PrometheusRule":
            base = values.get("prometheusRule", {}).get("runbookUrl") or "docs/runbook.md"
            wanted = json.loads(json.dumps(ALERTS).replace("docs/runbook.md", base))
            if one["spec"]["groups"][: len(ALERTS)] != wanted:
                problems.append("PrometheusRule: the alerts of alerts.yaml are missing, or their runbook is another")
    problems += cluster.problems(objects)
    problems += configurations(objects)
    return objects, [f"{name}: {problem}" for problem in problems]


def configurations(objects):
    """Checks each container's configuration by `talos config check`, or by Envoy."""
    problems = []
    for one, template in cluster.pods(objects):
        for container in cluster.containers(template):
            with tempfile.TemporaryDirectory(prefix="talos-helm-") as folder:
                pod = run.Pod(objects, template, Path(folder))
                if container["name"] == "talos":
                    plane = [argument for argument in container["args"][1:] if not argument.startswith("--")]
                    file = [argument for argument in pod.arguments(container) if argument.startswith("--config=")]
                    command = [TALOS, "config", "check", "--no-files", *file, *(["--plane", *plane] if plane else [])]
                elif container["name"] == "envoy":
                    command = [tools.ensure_envoy(), "--mode", "validate", *pod.arguments(container)]
                else:
                    continue
                if container["name"] == "envoy":
                    problems += doctor(one, Path(pod.arguments(container)[1]))
                done = subprocess.run(command, env=pod.environment(container), capture_output=True, text=True)
                warned = [line for line in done.stderr.splitlines() if line.startswith("warning")]
                if done.returncode != 0 or (warned and container["name"] == "talos"):
                    problems.append(f"{one['metadata']['name']}/{container['name']}: {done.stdout}{done.stderr}")
    return problems


def doctor(one, file):
    """Checks that `talos doctor` has no findings in an Envoy's configuration.

    One may be there: whoever sets no TLS for the gateway ends it in front.
    """
    done = subprocess.run([TALOS, "doctor", file], capture_output=True, text=True)
    findings = re.findall(r"^(?:ERROR|WARNING|NOTE) +(\S+)", done.stdout, re.M)
    is_healthy = done.returncode == 0 and set(findings) <= {"plain-http"} and ", 1 ext_authz filters" in done.stdout
    return [] if is_healthy else [f"{one['metadata']['name']}: talos doctor: {done.stdout}{done.stderr}"]


def models(objects):
    """Validates objects of Istio and others by their schemas."""
    kinds = {one["kind"] for one in objects}
    wanted = {"AuthorizationPolicy", "PeerAuthentication", "DestinationRule", "EnvoyFilter", "ReferenceGrant", "ServiceMonitor", "PrometheusRule"}
    return schemas.foreign(objects) + [f"no case has a {kind}" for kind in wanted - kinds]


def patches(objects):
    """Checks that the chart's EnvoyFilters are those of the example, which `edges.py` tests."""
    documents = yaml.safe_load_all((REPO / "envoy" / "istio" / "gateway.yaml").read_text())
    (example,) = [one["spec"]["configPatches"] for one in documents if one["kind"] == "EnvoyFilter"]
    unchecked = json.loads(json.dumps(example))
    for patch in unchecked:
        patch["patch"].get("value", {}).get("typed_config", {}).pop("deny_at_disable", None)
    problems = []
    found = {}
    for one in (one for one in objects if one["kind"] == "EnvoyFilter"):
        text = json.dumps(one["spec"]["configPatches"]).replace("edge-talos-authz.keys.", "talos-authz.talos.")
        text = text.replace("talos-serve-authz.keys.", "talos-authz.talos.")
        found[text] = one
    if {json.dumps(example), json.dumps(unchecked)} != set(found):
        problems.append("the chart's EnvoyFilters differ from that of envoy/istio/gateway.yaml, with and without deny_at_disable")
    return problems


def refused():
    """Checks that invalid values are refused with the expected message."""

    def one(case):
        values, text = case
        code, output, error = helm("template", "edge", CHART, values=values)
        if code == 0:
            return [f"{values}: was accepted"]
        return [] if text in error else [f"{values}: `{text}` isn't in\n{error}"]

    with concurrent.futures.ThreadPoolExecutor() as pool:
        return [problem for found in pool.map(one, cases.INVALID) for problem in found]


# Names of releases and aliases that Helm accepts, and the first part of the names that the chart makes of them.
NAMES = [
    ("talos", {}, "talos"),
    ("edge", {}, "edge-talos"),
    ("2024-prod", {}, "talos-2024-prod-talos"),
    ("keys.prod", {}, "keys-prod-talos"),
    ("a" * 53, {}, "a" * 48),
    ("edge", {"nameOverride": "keys"}, "edge-keys"),
    ("edge", {"fullnameOverride": "keys"}, "keys"),
]


def release_names():
    """Checks that every name of a release gives valid names of objects."""
    problems = []
    for release, values, wanted in NAMES:
        code, output, error = helm("template", release, CHART, values={"mode": "separate", **values})
        if code != 0:
            problems.append(f"release {release}: {error}")
            continue
        for one in (one for one in yaml.safe_load_all(output) if one):
            name = one["metadata"]["name"]
            if not re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", name) or not name.startswith(wanted):
                problems.append(f"release {release}: {one['kind']} has the name {name}, not {wanted}…")
    return problems


def migrations():
    """Checks that the Job that migrates has what the operator brings, with the configuration in the Secret and without."""
    problems = []
    for has_file, more in ((False, {}), (True, migration.FILE)):
        objects, found = render(cases.merged(migration.VALUES, more))
        problems += found or migration.problems(objects, "edge-talos", has_file)
    # The Job isn't run as a ServiceAccount of the chart, and its own variables override others.
    for values, account, key in (
        ({"workload": {"serviceAccount": {"name": "made"}}}, "default", "db-dsn"),
        ({"workload": {"serviceAccount": {"create": False}}}, "default", "db-dsn"),
        ({"migration": {"serviceAccountName": "keys"}}, "keys", "db-dsn"),
        ({"secrets": {"env": {"TALOS_DB_DSN": None}}, "extraEnv": [{"name": "TALOS_DB_DSN", "value": "x"}],
          "migration": {"env": {"TALOS_DB_DSN": "admin-dsn"}}}, "default", "admin-dsn"),
    ):
        objects, found = render(values)
        problems += found + cluster.problems(objects)
        pods = [one["spec"]["template"]["spec"] for one in objects if one["metadata"]["name"] == "edge-talos-migrate"]
        keys = [variable.get("valueFrom", {}).get("secretKeyRef", {}).get("key") for pod in pods
                for variable in pod["containers"][0]["env"] if variable["name"] == "TALOS_DB_DSN"]
        if [pod["serviceAccountName"] for pod in pods] != [account] or keys != [key]:
            problems.append(f"{values}: the Job isn't run as {account} with the DSN {key}: {pods}")
    return [f"migration: {problem}" for problem in problems]


HOSTS = {"planes": {"admin": {"trustedNetwork": True, "allowedHosts": ["keys.internal"]}}}


def hosts(objects, deployment, more):
    """Checks that the admin plane is called by the names of its Service, and by more."""
    service = "-".join(deployment.split("-")[:-1]) + "-admin"
    own = [service, f"{service}.keys", f"{service}.keys.svc", f"{service}.keys.svc.cluster.local"]
    found = [variable["value"] for one in objects if one["metadata"]["name"] == deployment and one["kind"] == "Deployment"
             for variable in one["spec"]["template"]["spec"]["containers"][0]["env"]
             if variable["name"] == "TALOS_SERVE_HTTP_ALLOWED_HOSTS"]
    return [] if found == [",".join(own + more)] else [f"{deployment}: the admin plane's names are {found}"]


def allowed_hosts():
    """Checks that more names of the admin plane can be set, with the configuration in the Secret and without."""
    problems = []
    config = {"config": {"serve": {"http": {"allowed_hosts": ["keys.example", "keys.internal"]}}}}
    for values, more in (
        (HOSTS, ["keys.internal"]),
        (cases.merged(HOSTS, migration.FILE), ["keys.internal"]),
        (cases.merged(HOSTS, config), ["keys.example", "keys.internal"]),
        (cases.merged(config, {"planes": {"admin": {"trustedNetwork": True}}}), ["keys.example", "keys.internal"]),
    ):
        objects, found = render(cases.merged(cases.EXPOSED, values))
        problems += found or hosts(objects, "edge-talos-all", more)
    return [f"allowed hosts: {problem}" for problem in problems]


def umbrella():
    """Checks the chart as a dependency: twice, by aliases, one of them switched off, with global values."""
    dependencies = [{"name": "talos", "version": "0.1.0", "alias": alias, "condition": f"{alias}.enabled"}
                    for alias in ("edgeKeys", "second_keys", "unused")]
    values = {"global": {"region": "eu"}, "edgeKeys": cases.merged({"enabled": True, "config": None}, migration.VALUES),
              "second_keys": cases.merged(cases.EXPOSED, HOSTS, {"enabled": True, "mode": "separate"}), "unused": {"enabled": False}}
    with tempfile.TemporaryDirectory(prefix="talos-umbrella-") as folder:
        parent = Path(folder)
        shutil.copytree(CHART, parent / "charts" / "talos")
        chart = {"apiVersion": "v2", "name": "umbrella", "version": "0.1.0", "dependencies": dependencies}
        (parent / "Chart.yaml").write_text(yaml.safe_dump(chart))
        code, output, error = helm("template", "shop", parent, "--namespace", "keys", "--kube-version", KUBERNETES, values=values)
    if code != 0:
        return [f"umbrella: {error}"]
    objects = [one for one in yaml.safe_load_all(output) if one]
    deployments = {one["metadata"]["name"] for one in objects if one["kind"] == "Deployment"}
    wanted = {"shop-edgekeys-all", *(f"shop-second-keys-{plane}" for plane in ("admin", "public", "authz"))}
    problems = cluster.problems(objects) + migration.problems(objects, "shop-edgekeys", has_file=False)
    problems += hosts(objects, "shop-second-keys-admin", ["keys.internal"])
    return [f"umbrella: {problem}" for problem in problems] + ([] if deployments == wanted else [f"umbrella: {deployments}"])


def notes():
    """Checks that the notes say where Envoy connects, and what is missing."""
    problems = []
    for values, texts, absent in (
        ({}, ["edge-talos-authz.keys.svc.cluster.local:4423", "no signing key", "no audit log", "no TLS between", "helm test edge"], []),
        ({"secrets": {"signingKeys": "a.json"}, "audit": {"enabled": True}}, ["no claim for the audit log"], ["no signing key", "no audit log"]),
        (cases.merged(cases.EXPOSED, HOSTS, migration.FILE), ["- edge-talos-admin.keys.svc\n", "- keys.internal\n",
                                                              "overrides serve.http.allowed_hosts of the Secret's talos.yaml"], []),
        (cases.merged(cases.EXPOSED, HOSTS), ["- keys.internal\n"], ["overrides serve.http.allowed_hosts"]),
        ({"mode": "sidecar"}, ["unix:///run/talos/authz.sock"], ["no TLS between"]),
    ):
        code, output, error = helm("install", "edge", CHART, "--namespace", "keys", "--dry-run=client", values=values)
        text = output.split("NOTES:")[-1]
        problems += [f"notes: `{wanted}` isn't in\n{text}{error}" for wanted in texts if wanted not in text]
        problems += [f"notes: `{unwanted}` is in\n{text}" for unwanted in absent if unwanted in text]
    return problems


def the_checks_can_fail(objects):
    """Checks that each kind of mistake is found."""
    istio = next(one for one in objects if one["kind"] == "PeerAuthentication")
    deployment = next(one for one in objects if one["kind"] == "Deployment")
    missed = []
    if not schemas.foreign([{**istio, "spec": {**istio["spec"], "mtsl": {}}}]):
        missed.append("an unknown field of Istio's")
    if not schemas.foreign([{**istio, "spec": {"mtls": {"mode": "STRONG"}}}]):
        missed.append("a wrong value of Istio's")
    if not patches([one for one in objects if one["kind"] != "EnvoyFilter"]):
        missed.append("a missing EnvoyFilter")
    security = json.loads(json.dumps(next(one for one in objects if one["kind"] == "SecurityPolicy")))
    security["spec"]["extAuth"]["timeout"] = "0.25s"
    if not cluster.security_policy(objects, security):
        missed.append("a wrong value of Envoy Gateway's")
    for what, part in (
        ("the chart's ServiceAccount", {"serviceAccountName": "edge-talos-all"}),
        ("the chart's ConfigMap", {"volumes": [{"name": "config", "configMap": {"name": "edge-talos"}}]}),
    ):
        template = {"spec": {"containers": [], **part}}
        early = {"kind": "Job", "metadata": {"name": "early", "annotations": {"helm.sh/hook": "pre-install"}}, "spec": {"template": template}}
        if not cluster.hook_references(objects, early):
            missed.append(f"a hook that needs {what}")
    root = json.loads(json.dumps(deployment))
    root["spec"]["template"]["spec"]["containers"][0]["securityContext"]["runAsUser"] = 0
    if not cluster.problems([root]):
        missed.append("a container that runs as root")
    return [f"the checks don't find {what}" for what in missed]


def values_schema(bless):
    """Checks that the schema of the values has the current schema of the configuration, or writes it with --bless."""
    file = CHART / "values.schema.json"
    values = json.loads(file.read_text())
    done = subprocess.run([TALOS, "config", "schema"], check=True, capture_output=True, text=True)
    values["$defs"]["config"] = json.loads(done.stdout) | {"$id": "talos-config"}
    text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    if bless:
        file.write_text(text)
    return [] if file.read_text() == text else [f"{file} has an outdated schema of the configuration: run tests/helm/check.py --bless"]


def main():
    problems = values_schema("--bless" in sys.argv[1:])
    objects = []
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for rendered, found in pool.map(lambda case: check(*case), cases.valid()):
            objects += rendered
            problems += found
    problems += models(objects) + patches(objects) + refused() + the_checks_can_fail(objects)
    problems += release_names() + umbrella() + notes() + migrations() + allowed_hosts()
    if not problems:
        problems += run.sidecar(render)
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{len(list(cases.valid()))} renderings, {len(objects)} objects, {len(cases.INVALID)} refused: {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
