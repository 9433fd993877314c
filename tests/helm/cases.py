"""Values to test the chart with: every mode and option, and values that must be refused."""

from pathlib import Path

import migration
import yaml

TLS = {"secretName": "talos-tls"}
MTLS = {**TLS, "clientCa": True}
PEERS = [{"namespaceSelector": {"matchLabels": {"team": "operators"}}}]
EXPOSED = {"planes": {"admin": {"expose": True}}, "networkPolicy": {"from": {"admin": PEERS}}}
GATEWAY = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge"}
CORP = {"credentials": {"issuer": "https://keys.corp.example"}, "rate_limit": {"enabled": True}}
CORPS = {"config": {"multitenancy": {"enabled": True, "networks": [
    {"hostname": "keys.corp.example", "id": "6ba7b811-9dad-41d1-80b4-00c04fd430c8", "config_path": "/etc/talos/config/corp.yaml"}]}}}
WORKLOAD = {
    "replicas": 3,
    "autoscaling": {"enabled": True, "minReplicas": 3, "maxReplicas": 9},
    "serviceAccount": {"annotations": {"team": "edge"}},
    "podAnnotations": {"a": "b"},
    "podLabels": {"team": "edge"},
    "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"key": "edge", "operator": "Exists", "effect": "NoSchedule"}],
    "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 1, "podAffinityTerm": {"topologyKey": "zone", "labelSelector": {"matchLabels": {"team": "edge"}}}}]}},
    "priorityClassName": "edge",
    "preStopSeconds": 10,
}


def merged(*parts):
    """Merges mappings; later ones take precedence."""
    result = {}
    for part in parts:
        for key, value in part.items():
            both = isinstance(value, dict) and isinstance(result.get(key), dict)
            result[key] = merged(result[key], value) if both else value
    return result


def valid():
    """Yields the name and values of each rendering."""
    for mode in ("all", "separate", "sidecar"):
        yield mode, {"mode": mode}
        yield f"{mode}-full", merged(EXPOSED, {
            "mode": mode,
            "fullnameOverride": "talos-serve",  # its Services would set TALOS_SERVE_AUTHZ_PORT in the pods' environment
            "image": {"repository": "keys.example.com/talos", "digest": "sha256:" + "0" * 64, "pullSecrets": ["pull"]},
            "config": {
                "credentials": {"issuer": "https://keys.example.com", "api_keys": {"max_ttl": "720h"}},
                "cache": {"type": "redis", "redis": {"addrs": ["redis:6380"], "tls": {
                    "enabled": True, "ca_file": "/etc/talos/redis/ca.crt"}}},
                "serve": {"http": {"client_ip_source": "CLIENT_IP_SOURCE_X_FORWARDED_FOR", "allowed_hosts": ["keys.internal"]}},
                "consistency": {"lease": "3s"},
            },
            "secrets": {
                "existingSecret": "keys",
                "env": {"TALOS_CACHE_REDIS_PASSWORD": "redis-password"},
                "signingKeys": "signing-keys.json",
                "files": ["extra.json"],
            },
            "secretMounts": [{"secretName": "redis-ca", "mountPath": "/etc/talos/redis"}],
            "planes": {"admin": {"trustedNetwork": True}, "authz": {"service": {"headless": True}}},
            "workload": WORKLOAD,
            "workloads": {"authz": {"replicas": 5}},
            "networkPolicy": {"egress": [{"ports": [{"port": 5432, "protocol": "TCP"}]}]},
            "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
            "prometheusRule": {"enabled": True, "runbookUrl": "https://wiki.example/talos" if mode == "all" else "", "groups": [{"name": "ours", "rules": [
                {"alert": "TalosGone", "expr": "absent(talos_epoch)", "for": "1m"}]}]},
        })
        yield f"{mode}-tls", merged(EXPOSED, {
            "mode": mode,
            "config": {"serve": {"http": {"auth": {"mode": "mtls", "roles": {"admin": ["spiffe://cluster.local/ns/a/sa/b"]}}}}},
            "planes": {"admin": {"tls": MTLS}, "public": {"tls": TLS}, "metrics": {"tls": TLS},
                       "authz": {"tls": MTLS}},
            "serviceMonitor": {"enabled": True},
        })
        yield f"{mode}-istio", merged(EXPOSED, {
            "mode": mode,
            "istio": {
                "enabled": True,
                "mtls": {"metricsPermissive": True},
                "admin": {"serviceAccounts": ["operators/console"]},
                "authz": {"serviceAccounts": ["istio-ingress/gateway"]},
                "data": {} if mode == "sidecar" else {"enabled": True, "namespace": "istio-ingress", "targetRefs": [GATEWAY]},
            },
        })
        yield f"{mode}-whole-secret", {"mode": mode, "secrets": {"config": "talos.yaml", "env": {
            "TALOS_SECRETS_HMAC_CURRENT": None, "TALOS_DB_DSN": None}}}
        # The admin plane has other names, beside those of its Service.
        yield f"{mode}-whole-secret-exposed", merged(EXPOSED, {
            "mode": mode,
            "secrets": {"config": "talos.yaml", "files": ["bank.yaml"]},
            "planes": {"admin": {"trustedNetwork": True, "allowedHosts": ["keys.internal", "*.keys.example"]}},
        })
        # What the operator brings, also for the Job that migrates.
        yield f"{mode}-migration", merged({"mode": mode}, migration.VALUES)
        yield f"{mode}-migration-whole-secret", merged({"mode": mode}, migration.VALUES, migration.FILE)
        yield f"{mode}-bare", {
            "mode": mode, "networkPolicy": {"enabled": False}, "migration": {"enabled": False},
            "workload": {"replicas": 1, "serviceAccount": {"create": False}},
        }
        yield f"{mode}-networks", {
            "mode": mode,
            "config": {"multitenancy": {"enabled": True, "networks": [
                {"hostname": "keys.acme.example", "id": "6ba7b810-9dad-41d1-80b4-00c04fd430c8"},
                {"hostname": "keys.corp.example", "id": "6ba7b811-9dad-41d1-80b4-00c04fd430c8", "config_path": "/etc/talos/config/corp.yaml"},
                {"hostname": "keys.bank.example", "id": "6ba7b812-9dad-41d1-80b4-00c04fd430c8",
                 "config_path": "/etc/talos/secrets/bank.yaml"},
            ]}},
            "networks": {"corp.yaml": CORP},
            "secrets": {"files": ["bank.yaml"]},
        }
    for mode in ("all", "separate"):
        yield f"{mode}-istio-workload", {"mode": mode, "istio": {"enabled": True, "data": {
            "enabled": True, "selector": {"app": "orders"},
            "rules": [{"to": [{"operation": {"notPaths": ["/healthz"]}}]}]}}}
        yield f"{mode}-envoy-gateway", {"mode": mode, "envoyGateway": {
            "enabled": True, "namespace": "edge", "targetRefs": [GATEWAY], "routeMetadata": True}}
    yield "sqlite", {"sqlite": {"enabled": True}}
    yield "sqlite-migration", merged({"sqlite": {"enabled": True}}, migration.VALUES)
    yield "sqlite-claim", {"sqlite": {"enabled": True, "existingClaim": "keys"}}
    yield "production", yaml.safe_load((Path(__file__).resolve().parents[2] / "helm/talos/values-production.yaml").read_text())
    # Parts that others provide: Secrets of a database operator, volumes and variables, and an audit log.
    for mode in ("all", "separate", "sidecar"):
        yield f"{mode}-brought", {
            "mode": mode,
            "enabled": True,
            "config": None,
            "commonLabels": {"team": "edge"},
            "secrets": {
                "env": {"TALOS_DB_DSN": {"secretName": "keys-db-app", "key": "uri"}, "TALOS_AUDIT_KEY": "audit-key"},
                "signingKeys": {"secretName": "signing", "key": "keys.json"},
            },
            "migration": {"env": {"TALOS_DB_DSN": {"secretName": "keys-db-app", "key": "admin-uri"}}},
            "audit": {"enabled": True, "existingClaim": "talos-audit"},
            "extraEnv": [{"name": "SSL_CERT_FILE", "value": "/etc/talos/extra/ca.crt"}],
            "extraEnvFrom": [{"secretRef": {"name": "extra", "optional": True}}],
            "extraVolumes": [{"name": "extra", "secret": {"secretName": "extra"}}],
            "extraVolumeMounts": [{"name": "extra", "mountPath": "/etc/talos/extra", "readOnly": True}],
            "workload": {"annotations": {"a": "b"}},
        }
    yield "audit-without-claim", {"audit": {"enabled": True}}
    yield "gateway", {"mode": "sidecar", "gateway": {"enabled": True}}
    yield "gateway-full", {"mode": "sidecar", "secrets": {"signingKeys": "signing-keys.json"}, "gateway": {
        "enabled": True,
        "service": {"type": "LoadBalancer", "annotations": {"a": "b"}},
        "tls": TLS,
        "upstream": {"host": "orders.shop.svc.cluster.local", "port": 8000},
        "routes": [
            {"prefix": "/reports", "policy": {"talos.scopes": "reports:read", "talos.audience": "reports"}},
            {"prefix": "/open", "policy": {"talos.mode": "off"}},
        ],
        "workload": WORKLOAD,
    }}
    # The accelerator: from the image of Talos, and copied from another one.
    for source in ("image", "copy"):
        accelerator = {"enabled": True, "source": source}
        if source == "copy":
            accelerator["image"] = {"repository": "keys.example.com/talos-module", "tag": "1"}
        yield f"accelerator-{source}", {"mode": "sidecar", "sidecar": {"accelerator": accelerator}, "gateway": {
            "enabled": True, "routes": [{"prefix": "/reports", "policy": {"talos.scopes": "reports:read"}}],
        }}


# Values that must be refused, and a part of the error message.
INVALID = [
    ({"mode": "both"}, "at '/mode': value must be one of 'all', 'separate', 'sidecar'"),
    ({"modes": "all"}, "additional properties 'modes' not allowed"),
    ({"image": {"repository": ""}}, "at '/image/repository': minLength"),
    ({"image": {"digest": "latest"}}, "at '/image/digest': 'latest' does not match pattern"),
    ({"workload": {"replicas": -1}}, "at '/workload/replicas': minimum: got -1, want 0"),
    ({"workload": {"replicas": "two"}}, "at '/workload/replicas': got string, want integer"),
    ({"workloads": {"admin": {"replica": 2}}}, "at '/workloads/admin': additional properties 'replica' not allowed"),
    ({"workloads": {"gateway": {}}}, "at '/workloads': additional properties 'gateway' not allowed"),
    ({"podSecurity": {"runAsUser": 0}}, "at '/podSecurity/runAsUser': minimum: got 0, want 1"),
    ({"planes": {"admin": {"port": 1}}}, "at '/planes/admin': additional properties 'port' not allowed"),
    ({"planes": {"admin": {"allowedHosts": ["a.internal,b.internal"]}}}, "at '/planes/admin/allowedHosts/0'"),
    ({"migration": {"serviceAccountName": "a/b"}}, "at '/migration/serviceAccountName'"),
    ({"planes": {"metrics": {"tls": {"clientCa": True}}}}, "additional properties 'clientCa' not allowed"),
    ({"planes": {"authz": {"service": {"type": "ExternalName"}}}}, "at '/planes/authz/service/type': value must be one of"),
    ({"planes": {"authz": {"service": {"port": 70000}}}}, "at '/planes/authz/service/port': maximum"),
    ({"secrets": {"existingSecret": ""}}, "at '/secrets/existingSecret'"),
    ({"secrets": {"env": {"HMAC": "hmac"}}}, "at '/secrets/env': additional properties 'HMAC' not allowed"),
    ({"config": {"cache": {"ttl": "soon"}}}, "at '/config/cache/ttl': 'soon' does not match pattern"),
    ({"config": {"cache": {"tll": "5m"}}}, "at '/config/cache': additional properties 'tll' not allowed"),
    ({"config": {"consistency": {"lease": True}}}, "at '/config/consistency/lease'"),
    ({"networkPolicy": {"from": {"admin": "some"}}}, "at '/networkPolicy/from/admin': value must be one of 'all', 'cluster'"),
    ({"istio": {"admin": {"serviceAccounts": ["console"]}}}, "at '/istio/admin/serviceAccounts/0': 'console' does not match"),
    ({"istio": {"mtls": {"mode": "STRONG"}}}, "at '/istio/mtls/mode': value must be one of"),
    ({"gateway": {"routes": [{"prefix": "reports"}]}}, "at '/gateway/routes/0/prefix': 'reports' does not match"),
    ({"gateway": {"routes": [{"prefix": "/a", "policy": {"talos.mode": False}}]}}, "value must be one of 'required', 'optional', 'off'"),
    ({"gateway": {"port": 80}}, "at '/gateway/port': minimum: got 80, want 1,024"),
    ({"planes": None}, "missing property 'planes'"),
    ({"extraVolumes": [{}]}, "missing property 'name'"),
    ({"secrets": {"env": {"TALOS_DB_DSN": {"secretName": "keys-db-app"}}}}, "missing property 'key'"),
    # Combinations that the schema can't express.
    ({"audit": {"enabled": True}, "config": {"audit": {"file": "/tmp/audit.log"}}}, "config.audit.file: is set by audit.enabled"),
    ({"planes": {"admin": {"expose": True}}}, "planes.admin.expose: callers would not be authenticated"),
    ({"planes": {"admin": {"expose": True, "trustedNetwork": True}}}, "networkPolicy.from.admin: is empty"),
    ({"planes": {"admin": {"allowedHosts": ["keys.internal"]}}}, "planes.admin.allowedHosts: needs planes.admin.expose"),
    (merged(EXPOSED, {"planes": {"admin": {"trustedNetwork": True}}, "extraEnv": [{"name": "TALOS_SERVE_HTTP_ALLOWED_HOSTS", "value": "a"}]}),
     "extraEnv: TALOS_SERVE_HTTP_ALLOWED_HOSTS: is set by planes.admin.allowedHosts"),
    ({"config": {"serve": {"http": {"host": "0.0.0.0"}}}}, "config.serve.http.host: the chart sets the listeners"),
    ({"config": {"db": {"dsn": "postgres://u:p@h/d"}}}, "config.db: the DSN has a password"),
    ({"config": {"migrate": {"dsn": "postgres://u:p@h/d"}}}, "config.migrate.dsn: the DSN has a password"),
    ({"config": {"cache": {"redis": {"sentinel": {"password": "p"}}}}}, "config.cache.redis.sentinel.password: secrets must not"),
    ({"extraEnv": [{"name": "TALOS_SERVE_HTTP_PORT", "value": "80"}]}, "extraEnv: TALOS_SERVE_HTTP_PORT: the chart sets the listeners"),
    ({"extraEnv": [{"name": "TALOS_SECRETS_HMAC_CURRENT", "value": "x"}]}, "extraEnv: TALOS_SECRETS_HMAC_CURRENT: is set by secrets.env"),
    ({"extraEnv": [{"name": "TALOS_AUDIT_FILE", "value": "x"}], "audit": {"enabled": True}}, "extraEnv: TALOS_AUDIT_FILE: is set by audit.enabled"),
    ({"config": {"secrets": {"hmac": {"current": "x" * 40}}}}, "config.secrets: secrets must not be in a ConfigMap"),
    ({"config": {"cache": {"redis": {"password": "p"}}}}, "config.cache.redis.password: secrets must not"),
    ({"config": {"audit": {"key": "x" * 40}}}, "config.audit.key: secrets must not"),
    ({"config": {"credentials": {"derived_tokens": {"jwt": {"signing_keys": {"urls": ["base64://e30="]}}}}}}, "a private key"),
    ({"config": {"cache": {"ttl": "1m"}}, "secrets": {"config": "talos.yaml"}}, "config: is not used with secrets.config"),
    ({"networks": {"corp": CORP}}, "'corp' does not match pattern"),
    ({"networks": {"talos.yaml": CORP}}, "invalid propertyName 'talos.yaml'"),
    ({"networks": {"corp.yaml": {"db": {}}}}, "at '/networks/corp.yaml': additional properties 'db' not allowed"),
    ({"networks": {"corp.yaml": CORP}}, "networks.corp.yaml: is not used; set config_path of a network in config.multitenancy.networks to /etc/talos/config/corp.yaml"),
    ({**CORPS, "networks": {"corp.yaml": {"credentials": {"issuers": []}}}}, "additional properties 'issuers' not allowed"),
    ({**CORPS, "networks": {"corp.yaml": {"secrets": {"hmac": {"current": "x" * 40}}}}}, "networks.corp.yaml.secrets: secrets must not"),
    ({"networks": {"corp.yaml": CORP}, "secrets": {"config": "talos.yaml"}}, "networks: is not used with secrets.config"),
    ({"mode": "separate", "sqlite": {"enabled": True}}, "sqlite.enabled: needs mode all"),
    ({"sqlite": {"enabled": True}, "workload": {"autoscaling": {"enabled": True}}}, "sqlite.enabled: allows only one replica"),
    ({"gateway": {"enabled": True}}, "gateway.enabled: needs mode sidecar"),
    ({"sidecar": {"accelerator": {"enabled": True}}}, "sidecar.accelerator.enabled: needs mode sidecar"),
    ({"mode": "sidecar", "sidecar": {"accelerator": {"source": "url"}}}, "at '/sidecar/accelerator/source'"),
    ({"workload": {"autoscaling": {"enabled": True, "minReplicas": 20}}}, "minReplicas: must not be above maxReplicas"),
    ({"istio": {"data": {"enabled": True}}}, "istio.data.enabled: needs istio.enabled"),
    ({"mode": "sidecar", "envoyGateway": {"enabled": True, "targetRefs": [GATEWAY]}}, "mode: sidecar has no authz Service"),
    ({"envoyGateway": {"enabled": True}}, "envoyGateway.targetRefs: name at least one"),
]
