"""Measures changes of many tenants side by side: issue, revoke and rotate, with quotas, by database."""

import json
import uuid

from servers import Talos
from stores import Stores

KINDS = ["issue", "revoke", "rotate"]
CLIENTS = [1, 64]
NETWORKS = [1, 100]
# The network that does nothing but revoke a key now and then.
QUIET = "quiet.load.test"
QUOTA = {"TALOS_QUOTA_API_KEYS_MAX": "10000000"}


def hosts(count):
    return [f"n{n}.load.test" for n in range(count)]


def compare(comparison, kinds):
    """Runs the rounds of each database."""
    for kind in kinds:
        stores = Stores(comparison.processes)
        try:
            measure_store(comparison, stores.new(kind, f"writes-{kind}"), kind)
        finally:
            comparison.processes.end()
            stores.close()


def measure_store(comparison, dsn, database):
    """Measures each kind of change, with each number of clients and of networks."""
    networks = [{"hostname": name, "id": str(uuid.uuid5(uuid.NAMESPACE_DNS, name))} for name in [*hosts(max(NETWORKS)), QUIET]]
    environment = QUOTA | {"TALOS_MULTITENANCY_ENABLED": "true", "TALOS_MULTITENANCY_NETWORKS": json.dumps(networks)}
    talos = Talos(comparison.processes, f"writes-{database}", cpus=comparison.server_cpus, dsn=dsn, env=environment)
    for change in KINDS:
        for clients in CLIENTS:
            for count in NETWORKS:
                def measure(server, _n, change=change, clients=clients, count=count):
                    outcome = comparison.processes.generate(
                        "writes", "--admin", f"127.0.0.1:{server.admin}", "--kind", change, "--clients", clients,
                        "--hosts", ",".join(hosts(count)), "--quiet-host", QUIET, "--seconds", comparison.profile["seconds"],
                        "--pid", server.pid, cpus=comparison.generator_cpus)
                    for part in (outcome, outcome["quiet"]):
                        comparison.require_correct(f"{database}, {change}", part)
                    return outcome

                figures = {
                    "changes a second": lambda o: o["per_second"],
                    "p99 ms": lambda o: o["latency_us"]["p99"] / 1000,
                    "another network's revocation, p50 ms": lambda o: o["quiet"]["latency_us"]["p50"] / 1000,
                    "another network's revocation, longest ms": lambda o: o["quiet"]["latency_us"]["max"] / 1000,
                }
                many = "1 network" if count == 1 else f"{count} networks"
                scenario = f"{database}, {change}, {clients} client{'s' if clients > 1 else ''}, {many}"
                comparison.compare(scenario, {"talos": talos}, measure, figures)
