"""Checks the Job that migrates: what the operator brings for Talos's pods must reach it, and it must be able to run."""

FIELDS = [{"key": "disk", "operator": "In", "values": ["ssd"]}]
NODES = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": FIELDS}]}}
REPLICAS = {"requiredDuringSchedulingIgnoredDuringExecution": [
    {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app.kubernetes.io/name": "talos"}}}]}
# Volumes, mounts and variables for each container that runs Talos.
ROOTS = {"name": "roots", "configMap": {"name": "roots"}}
ROOTS_MOUNT = {"name": "roots", "mountPath": "/etc/talos/roots", "readOnly": True}
VARIABLE = {"name": "SSL_CERT_FILE", "value": "/etc/talos/roots/ca.crt"}
DATABASE = {"name": "TALOS_MIGRATE_DSN", "valueFrom": {"secretKeyRef": {"name": "extra", "key": "admin-dsn"}}}
# A setting, which may be invalid without others in `config`.
SETTING = {"name": "TALOS_CACHE_TTL", "value": "1m"}
SOURCE = {"secretRef": {"name": "extra"}}  # has the DSN

VALUES = {
    "image": {"pullSecrets": ["pull"]},
    "secrets": {"env": {"TALOS_DB_DSN": None}, "files": ["bank.yaml"]},
    "secretMounts": [{"secretName": "redis-ca", "mountPath": "/etc/talos/redis"}],
    "extraEnv": [VARIABLE, DATABASE, SETTING],
    "extraEnvFrom": [SOURCE],
    "extraVolumes": [ROOTS, {"name": "data", "persistentVolumeClaim": {"claimName": "keys"}}],
    # The Job has neither the claim nor the volume `config`, unless that is the Secret's.
    "extraVolumeMounts": [ROOTS_MOUNT, {"name": "data", "mountPath": "/data"}, {"name": "config", "mountPath": "/config"}],
    "workload": {
        "priorityClassName": "edge",
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "edge", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {"nodeAffinity": NODES, "podAntiAffinity": REPLICAS},
        "serviceAccount": {"create": False, "name": "keys"},
    },
}
FILE = {"secrets": {"config": "talos.yaml"}}  # added to VALUES: the whole talos.yaml is in the Secret


def named(entries, name):
    """Returns the entry with a name, or None."""
    return next((entry for entry in entries if entry["name"] == name), None)


def problems(objects, prefix, has_file):
    """Returns what is wrong with the Job of a rendering of VALUES in mode `all`, with FILE or without."""
    by_name = {(one["kind"], one["metadata"]["name"]): one for one in objects}
    job, deployment = by_name.get(("Job", f"{prefix}-migrate")), by_name.get(("Deployment", f"{prefix}-all"))
    if not job or not deployment:
        return [f"{prefix}: has no Job that migrates, or no Deployment"]
    pod, talos = job["spec"]["template"]["spec"], deployment["spec"]["template"]["spec"]
    migrate, serve = pod["containers"][0], talos["containers"][0]
    found = []

    def must(what, value, wanted):
        if value != wanted:
            found.append(f"{prefix}-migrate: {what} is {value}, not {wanted}")

    workload = VALUES["workload"]
    for key in ("priorityClassName", "nodeSelector", "tolerations"):
        must(key, pod.get(key), workload[key])
        must(f"{key} of Talos", talos.get(key), workload[key])
    # By the rule about replicas, the Job could run nowhere.
    must("affinity", pod.get("affinity"), {"nodeAffinity": NODES})
    must("serviceAccountName", pod.get("serviceAccountName"), "keys")
    must("imagePullSecrets", pod.get("imagePullSecrets"), [{"name": "pull"}])
    must("securityContext", pod["securityContext"], talos["securityContext"])
    must("the container's securityContext", migrate["securityContext"], serve["securityContext"])
    must("the volume roots", named(pod["volumes"], "roots"), ROOTS)
    must("the mount roots", named(migrate["volumeMounts"], "roots"), ROOTS_MOUNT)
    for name in ("secrets", "secret-0", *(["config"] if has_file else [])):
        volume, mount = named(talos["volumes"], name), named(serve["volumeMounts"], name)
        if not volume or not mount:
            found.append(f"{prefix}-all: has no volume {name}")
        must(f"the volume {name}", named(pod["volumes"], name), volume)
        must(f"the mount {name}", named(migrate["volumeMounts"], name), mount)
    must("the volume data", named(pod["volumes"], "data"), None)
    paths = [mount["mountPath"] for mount in migrate["volumeMounts"]]
    must("the extra mounts", [path for path in paths if path in ("/data", "/config")], [])
    must("envFrom", migrate.get("envFrom"), [SOURCE])
    variables = migrate.get("env", [])
    must("TALOS_DB_DSN", named(variables, "TALOS_DB_DSN"), None)  # would override that of the source
    must("SSL_CERT_FILE", named(variables, "SSL_CERT_FILE"), VARIABLE)
    must("TALOS_MIGRATE_DSN", named(variables, "TALOS_MIGRATE_DSN"), DATABASE)
    must("TALOS_CACHE_TTL", named(variables, "TALOS_CACHE_TTL"), SETTING if has_file else None)
    return found
