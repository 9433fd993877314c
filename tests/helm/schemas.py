"""Validates objects of Istio, the Gateway API and the Prometheus Operator."""

import json
import subprocess
from pathlib import Path

import tools

# Kinds that kubernetes-validate doesn't know, by group.
FOREIGN = ("istio.io", "gateway.networking.k8s.io", "monitoring.coreos.com")


def foreign(objects):
    """Returns the problems that the schemas find in such objects."""
    known = [one for one in objects if one["apiVersion"].split("/")[0].endswith(FOREIGN)]
    modules = tools.ensure_kubernetes_models() / "node_modules"
    command = ["node", Path(__file__).parent / "models.mjs", modules]
    done = subprocess.run(command, input=json.dumps(known), capture_output=True, text=True)
    return [done.stderr] if done.returncode != 0 else json.loads(done.stdout)
