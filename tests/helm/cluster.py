"""Checks rendered objects beyond their schemas: references between them, and the restricted Pod Security Standard."""

import envoy_gateway

PODS = ("Deployment", "Job")
# Objects that the operator creates.
EXTERNAL_SECRETS = {
    "talos", "keys", "talos-tls", "redis-ca", "keys-db-app", "signing", "extra", "talos-admin-tls", "talos-public-tls", "talos-authz-tls",
}
EXTERNAL_CLAIMS = {"keys", "talos-audit"}
EXTERNAL_MAPS = {"roots"}
EXTERNAL_ACCOUNTS = {"keys"}


def pods(objects):
    """Returns each object that creates pods, and its pod template."""
    return [(one, one["spec"]["template"]) for one in objects if one["kind"] in PODS]


def containers(template):
    """Returns all containers of a pod template."""
    return template["spec"].get("initContainers", []) + template["spec"]["containers"]


def problems(objects):
    """Returns all problems, one per line."""
    found = []
    names = [(one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in objects]
    found += [f"{name} is defined twice" for name in set(names) if names.count(name) > 1]
    for one, template in pods(objects):
        name = f"{one['kind']} {one['metadata']['name']}"
        found += [f"{name}: {problem}" for problem in pod_security(template["spec"]) + pod_references(objects, template)]
        found += [f"{name}: {problem}" for problem in hook_references(objects, one)]
    for one in objects:
        name = f"{one['kind']} {one['metadata']['name']}"
        if not one["metadata"].get("namespace"):
            found.append(f"{name}: has no namespace")
        found += [f"{name}: {problem}" for problem in references(objects, one)]
    return found


def pod_security(pod):
    """Checks the restricted Pod Security Standard and some further settings."""
    found = []

    def must(condition, problem):
        if not condition:
            found.append(problem)

    security = pod.get("securityContext", {})
    must(security.get("runAsNonRoot") is True and security.get("runAsUser", 0) > 0, "may run as root")
    must(security.get("seccompProfile") == {"type": "RuntimeDefault"}, "seccomp")
    must(pod.get("enableServiceLinks") is False, "enableServiceLinks isn't false")
    must(pod.get("automountServiceAccountToken") is False, "has a token for the API server")
    must(not any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")), "shares the host's namespaces")
    allowed = {"configMap", "emptyDir", "secret", "persistentVolumeClaim", "image", "name"}
    must(all(set(volume) <= allowed for volume in pod.get("volumes", [])), "volumes")
    must(all(volume["emptyDir"].get("sizeLimit") for volume in pod.get("volumes", []) if "emptyDir" in volume),
         "an emptyDir has no size limit")
    for one in pod.get("initContainers", []) + pod["containers"]:
        own = one.get("securityContext", {})
        must(own.get("allowPrivilegeEscalation") is False, f"{one['name']}: privilege escalation")
        must(own.get("privileged") is False, f"{one['name']}: privileged")
        must(own.get("readOnlyRootFilesystem") is True, f"{one['name']}: the root filesystem is writable")
        must(own.get("capabilities") == {"drop": ["ALL"]}, f"{one['name']}: capabilities")
        must(own.get("runAsNonRoot") is True and own.get("runAsUser", 1) > 0, f"{one['name']}: may run as root")
        must(own.get("seccompProfile") == {"type": "RuntimeDefault"}, f"{one['name']}: seccomp")
        must("memory" in one["resources"]["limits"] and "cpu" in one["resources"]["requests"], f"{one['name']}: resources")
        must(all("hostPort" not in port for port in one.get("ports", [])), f"{one['name']}: uses a host port")
    return found


def pod_references(objects, template):
    """Checks that everything that a pod refers to exists."""
    found = []
    pod = template["spec"]
    maps = {one["metadata"]["name"]: one["data"] for one in objects if one["kind"] == "ConfigMap"}
    accounts = {one["metadata"]["name"] for one in objects if one["kind"] == "ServiceAccount"} | {"default"} | EXTERNAL_ACCOUNTS
    if pod.get("serviceAccountName", "default") not in accounts:
        found.append(f"no ServiceAccount {pod['serviceAccountName']}")
    volumes = [volume["name"] for volume in pod.get("volumes", [])]
    if len(set(volumes)) != len(volumes):
        found.append("a volume is defined twice")
    mounted = set()
    for one in pod.get("initContainers", []) + pod["containers"]:
        paths = [mount["mountPath"] for mount in one.get("volumeMounts", [])]
        if len(set(paths)) != len(paths):
            found.append(f"{one['name']}: two mounts at one path")
        for mount in one.get("volumeMounts", []):
            mounted.add(mount["name"])
            if mount["name"] not in volumes:
                found.append(f"{one['name']}: no volume {mount['name']}")
            if "subPath" in mount:
                found.append(f"{one['name']}: a subPath mount is never updated")
        ports = {port["name"] for port in one.get("ports", [])}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            http = one.get(probe, {}).get("httpGet")
            if http and http["port"] not in ports:
                found.append(f"{one['name']}: {probe} uses the unknown port {http['port']}")
        for variable in one.get("env", []):
            secret = variable.get("valueFrom", {}).get("secretKeyRef")
            if secret and secret["name"] not in EXTERNAL_SECRETS:
                found.append(f"{one['name']}: {variable['name']} refers to the unknown Secret {secret['name']}")
        variables = [variable["name"] for variable in one.get("env", [])]
        if len(set(variables)) != len(variables):
            found.append(f"{one['name']}: a variable is defined twice")
    found += [f"volume {name} is not mounted" for name in set(volumes) - mounted]
    for volume in pod.get("volumes", []):
        if "configMap" in volume and volume["configMap"]["name"] not in {*maps, *EXTERNAL_MAPS}:
            found.append(f"no ConfigMap {volume['configMap']['name']}")
        if "secret" in volume and volume["secret"]["secretName"] not in EXTERNAL_SECRETS:
            found.append(f"no Secret {volume['secret']['secretName']}")
        if "persistentVolumeClaim" in volume and volume["persistentVolumeClaim"]["claimName"] not in EXTERNAL_CLAIMS:
            found.append("unknown claim")
    stop = [one["lifecycle"]["preStop"]["sleep"]["seconds"] for one in pod["containers"] if "lifecycle" in one]
    # Talos drains for 10 s.
    if stop and pod["terminationGracePeriodSeconds"] < max(stop) + 15:
        found.append("is killed before its connections have drained")
    return found


def hook_references(objects, one):
    """Checks that a Job that runs before the installation needs nothing that the chart installs after it."""

    def hooks(two):
        return two["metadata"].get("annotations", {}).get("helm.sh/hook", "")

    if "pre-install" not in hooks(one):
        return []
    pod = one["spec"]["template"]["spec"]
    needed = {("ServiceAccount", pod.get("serviceAccountName", "default"))}
    for volume in pod.get("volumes", []):
        needed.add(("ConfigMap", volume.get("configMap", {}).get("name")))
        needed.add(("PersistentVolumeClaim", volume.get("persistentVolumeClaim", {}).get("claimName")))
    for container in containers(one["spec"]["template"]):
        for variable in container.get("env", []):
            needed.add(("ConfigMap", variable.get("valueFrom", {}).get("configMapKeyRef", {}).get("name")))
        for source in container.get("envFrom", []):
            needed.add(("ConfigMap", source.get("configMapRef", {}).get("name")))
    later = {(two["kind"], two["metadata"]["name"]) for two in objects if not hooks(two)}
    return [f"needs the {kind} {name}, which is installed after it" for kind, name in sorted(needed & later)]


def matches(selector, labels):
    """Returns True if labels match a selector."""
    return all(labels.get(key) == value for key, value in selector.items())


def references(objects, one):
    """Checks the references from one object to others."""
    selected = lambda selector: [  # noqa: E731
        template for _, template in pods(objects) if matches(selector, template["metadata"]["labels"])
    ]
    spec = one.get("spec", {})
    kind = one["kind"]
    if kind == "Service":
        templates = selected(spec["selector"])
        if len(templates) != 1:
            return [f"selects {len(templates)} workloads"]
        ports = {port["name"] for container in containers(templates[0]) for port in container.get("ports", [])}
        return [f"no port {port['targetPort']}" for port in spec["ports"] if port["targetPort"] not in ports]
    if kind in ("NetworkPolicy", "PodDisruptionBudget", "PeerAuthentication"):
        selector = spec.get("podSelector") or spec["selector"]
        templates = selected(selector["matchLabels"])
        if len(templates) != 1:
            return [f"selects {len(templates)} workloads"]
        open_ports = {port["containerPort"] for container in containers(templates[0]) for port in container.get("ports", [])}
        rules = spec.get("ingress", [])
        return [f"opens port {port['port']}, which no container has"
                for rule in rules for port in rule["ports"] if port["port"] not in open_ports]
    if kind == "AuthorizationPolicy" and spec["action"] == "ALLOW":
        return [] if len(selected(spec["selector"]["matchLabels"])) == 1 else ["selects no workload"]
    if kind == "Deployment":
        return [] if selected(spec["selector"]["matchLabels"]) == [spec["template"]] else ["selects other pods"]
    if kind == "HorizontalPodAutoscaler":
        target = [two for two in objects if two["kind"] == "Deployment"
                  and two["metadata"]["name"] == spec["scaleTargetRef"]["name"]]
        return [] if target and "replicas" not in target[0]["spec"] else ["conflicts with the replicas of its Deployment"]
    if kind == "ServiceMonitor":
        services = [two for two in objects if two["kind"] == "Service"
                    and matches(spec["selector"]["matchLabels"], two["metadata"]["labels"])]
        named = all(any(port["name"] == spec["endpoints"][0]["port"] for port in two["spec"]["ports"]) for two in services)
        return [] if services and named else ["finds no Service"]
    if kind == "SecurityPolicy":
        return security_policy(objects, one)
    return []


def security_policy(objects, one):
    """Checks the fields that the chart uses; Envoy Gateway's own schema isn't available as a package."""
    config, _, _, backends, found = envoy_gateway.security_policy(one)
    filter_ = config["typed_config"]
    if filter_["failure_mode_allow"] or filter_["clear_route_cache"] or filter_.get("status_on_error") != {"code": 503}:
        found.append("extAuth isn't safe")
    for backend in backends:
        services = [two for two in objects if two["kind"] == "Service" and two["metadata"]["name"] == backend["name"]]
        if len(services) != 1 or backend["port"] not in [port["port"] for port in services[0]["spec"]["ports"]]:
            found.append(f"no Service {backend['name']} with port {backend['port']}")
        granted = [two for two in objects if two["kind"] == "ReferenceGrant"
                   and two["spec"]["from"][0]["namespace"] == one["metadata"]["namespace"]]
        if backend["namespace"] != one["metadata"]["namespace"] and not granted:
            found.append("has no ReferenceGrant")
    return found
