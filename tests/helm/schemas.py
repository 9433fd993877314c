"""The schemas of objects that Istio, the Gateway API and the Prometheus Operator bring."""

import json
import subprocess
from pathlib import Path

import tools

# Kinds that kubernetes-validate doesn't know, by group.
FOREIGN = ("istio.io", "gateway.networking.k8s.io", "monitoring.coreos.com")


def foreign(objects):
    """What the schemas say of those among these objects."""
    known = [one for one in objects if one["apiVersion"].split("/")[0].endswith(FOREIGN)]
    modules = tools.ensure_kubernetes_models() / "node_modules"
    command = ["node", Path(__file__).parent / "models.mjs", modules]
    done = subprocess.run(command, input=json.dumps(known), capture_output=True, text=True)
    return [done.stderr] if done.returncode != 0 else json.loads(done.stdout)
