"""Checks by h2load, a generator that uses little CPU time itself, so that the server's share is visible."""

import os
import re
import shutil
import statistics
import subprocess

from servers import Floor, LoadError, Talos

CHECK = "/envoy.service.auth.v3.Authorization/Check"
# CPU time of a cached Check relative to the floor's, measured on an idle machine, and the allowed increase.
BASELINE, TOLERANCE = {"TCP": 0.24, "Unix socket": 0.22}, 1.05
FIGURE = "CPU µs a Check"


def is_installed():
    return shutil.which("h2load") is not None


def compare(comparison):
    """Measures Talos and the floor over each transport; fails if Talos takes more CPU time than before."""
    for transport in BASELINE:
        measure(comparison, transport)
    worse = []
    for transport, baseline in BASELINE.items():
        ratio = statistics.median(ratios(comparison.table, transport))
        limit = baseline * TOLERANCE
        print(f"== {transport}: {ratio:.3f} of the floor's CPU time; baseline {baseline:.2f}, limit {limit:.3f}", flush=True)
        if ratio > limit:
            worse.append(f"{transport}: {ratio:.3f} instead of at most {limit:.3f}")
    if worse:
        raise LoadError("a cached Check takes more CPU time than before (was the machine idle?): " + "; ".join(worse))


def ratios(table, transport):
    """Returns the ratios of all rounds over a transport."""
    wanted = (f"h2load, {transport}", "talos / floor", FIGURE)
    return next(values for *row, values in table.rows if tuple(row) == wanted)


def measure(comparison, transport):
    """Runs the rounds over one transport; each round also verifies responses."""
    processes, unix = comparison.processes, transport != "TCP"
    talos = Talos(processes, f"talos-h2-{transport[:4]}", unix, comparison.server_cpus)
    floor = Floor(processes, f"floor-h2-{transport[:4]}", unix, comparison.server_cpus)
    keys, message = talos.issue(comparison.profile["keys"]), processes.directory / f"{talos.port}.message"
    processes.generate("message", "--keys", keys, "--out", message)
    # The number of Checks that both servers answer in about the duration of a round.
    rate = min(flood(comparison, server, message, 20_000)["per_second"] for server in (talos, floor))
    count = max(20_000, round(rate * comparison.profile["seconds"]))

    def one_round(server, _):
        # Verifies responses, which h2load doesn't.
        touch = ["--touch"] if not server.always_ok else []
        comparison.check_round(server, keys, "--connections", 1, "--streams", 4, *touch, seconds=0.2)
        return flood(comparison, server, message, count)

    figures = {FIGURE: lambda o: o["cpu_us"], "Checks a second": lambda o: o["per_second"]}
    comparison.compare(f"h2load, {transport}", {"talos": talos, "floor": floor}, one_round, figures)
    processes.end()


def flood(comparison, server, message, count):
    """Sends Checks by h2load; returns the server's CPU time per Check and the rate."""
    profile = comparison.profile
    address = ["--base-uri", server.target, CHECK] if server.target.startswith("unix:") else [f"http://{server.target}{CHECK}"]
    command = ["h2load", "--threads", "1", "--clients", profile["connections"], "--max-concurrent-streams", profile["streams"],
               "--requests", count, "--data", message,
               "--header", "content-type: application/grpc", "--header", "te: trailers", *address]
    before = cpu_seconds(server.pid)
    pin = comparison.generator_cpus
    done = subprocess.run([str(part) for part in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, preexec_fn=lambda: os.sched_setaffinity(0, pin))
    spent = cpu_seconds(server.pid) - before
    return parse(done.stdout, spent, done.returncode)


def parse(output, spent, code=0):
    """Parses the output of h2load; returns the CPU time per Check and the rate."""
    requests = re.search(r"requests: (\d+) total, .* (\d+) succeeded, (\d+) failed, (\d+) errored", output)
    rate = re.search(r"finished in [\d.]+m?s, ([\d.]+) req/s", output)
    succeeded_2xx = re.search(r"status codes: (\d+) 2xx", output)
    if code != 0 or not (requests and rate and succeeded_2xx):
        raise LoadError(f"h2load failed (exit code {code}):\n{output[-1500:]}")
    _, succeeded, failed, errored = map(int, requests.groups())
    if failed or errored or not succeeded:
        raise LoadError(f"h2load: {failed} failed, {errored} errored, {succeeded} succeeded")
    return {"cpu_us": spent * 1e6 / int(succeeded_2xx[1]), "per_second": float(rate[1]), "done": int(succeeded_2xx[1])}


def cpu_seconds(pid):
    """Returns the CPU time of a process in seconds, user and system."""
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
