#!/usr/bin/env python3
"""Requests made from descriptions of the API, thousands of them, against a Talos of their own (schemathesis).

Twice: from Ory's published description, which existing clients are made from, and from our own, which Talos serves.
Prints a line a run when all is well, and everything that schemathesis says otherwise. The seed is always the same one
unless `--seed` gives another.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import server
import tools

HERE = Path(__file__).resolve().parent
ISSUED = "/v2alpha1/admin/issuedApiKeys"
IMPORTED = "/v2alpha1/admin/importedApiKeys"
DERIVE = "/v2alpha1/admin/apiKeys:derive"

# Left out: missing_required_header (there is no required header); ignored_auth and object_level_authorization (the admin
# plane has no authentication of its own); positive_data_acceptance (no schema tells everything: a TTL beyond the key's
# own end, an address block that is none; and by Ory's description, which has no bounds, an empty name is a good one).
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "use_after_free",
    "ensure_resource_availability",
    "unsupported_method",
    "allow_header_conformance",
]

RUNS = {"Ory's description": "tests/clients/ory-openapi.json", "our description": "/openapi.json"}


def make_pool(talos, size=60):
    """Makes keys of every kind; returns their ids and credentials, in two halves."""
    pool = {}
    for half in ("staying", "ending"):
        issued, imported, credentials = [], [], []
        for number in range(size):
            fields = {"name": f"{half} {number}", "actor_id": "fuzz", "scopes": ["a", "b:*"]}
            _, answer = talos.call("POST", ISSUED, fields)
            issued.append(answer["issued_api_key"]["key_id"])
            credentials.append(answer["secret"])
            raw_key = f"fuzz-{half}-{number}"
            _, answer = talos.call("POST", IMPORTED, {**fields, "raw_key": raw_key})
            imported.append(answer["key_id"])
            credentials.append(raw_key)
            if number % 4 == 0:
                _, answer = talos.call("POST", DERIVE, {"credential": raw_key})
                credentials.append(answer["token"]["token"])
        pool[half] = {"issued": issued, "imported": imported, "credentials": credentials}
    return pool


def run(name, seed, seconds):
    """One run; returns whether nothing was found."""
    location = RUNS[name]
    print(f"{name}, seed {seed}: ", end="", flush=True)
    with server.running() as talos, tempfile.TemporaryDirectory(prefix="fuzz-") as directory:
        pool = Path(directory) / "pool.json"
        pool.write_text(json.dumps({**make_pool(talos), "null_is_known": location.startswith("/")}))
        schema = talos.url("HTTP") + location if location.startswith("/") else str(server.REPO / location)
        command = [
            *[sys.executable, "-m", "schemathesis.cli", "run", schema, "--url", talos.url("HTTP")],
            *["--checks", ",".join(CHECKS), "--mode", "all", "--phases", "examples,coverage,fuzzing,stateful"],
            *["--seed", str(seed), "--max-time", str(seconds), "--generation-database", "none"],
            *["--workers", "1", "--request-timeout", "10", "--no-color", "--warnings", "off"],
        ]
        env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(tools.ensure_schemathesis()), str(HERE)]),
            "SCHEMATHESIS_HOOKS": "fuzz_hooks",
            "TALOS_FUZZ_POOL": str(pool),
        }
        done = subprocess.run(
            command, cwd=directory, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        output = done.stdout.decode(errors="replace")
        talos.check()
        if done.returncode != 0:
            print(f"findings\n{output}\nThe end of Talos's log:\n{talos.log_end()}")
            return False
        summary = [line.strip() for line in output.splitlines() if "generated" in line or "Tested:" in line]
        print("; ".join(summary))
        return True


def main():
    parser = argparse.ArgumentParser(description="Fuzzes the HTTP API from its descriptions.")
    parser.add_argument("--seed", type=int, default=1, help="where the choice of requests begins (1)")
    parser.add_argument("--seconds", type=int, default=50, help="the bound of each run (50)")
    parser.add_argument("runs", nargs="*", metavar="RUN", help=" or ".join(f"“{name}”" for name in RUNS))
    options = parser.parse_args()
    # Ended from outside, we end what we started.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        return 0 if all([run(name, options.seed, options.seconds) for name in options.runs or RUNS]) else 1
    except (server.ServerFailed, tools.ToolError) as error:
        print(error)
        return 1


if __name__ == "__main__":
    sys.exit(main())
