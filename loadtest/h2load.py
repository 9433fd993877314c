"""Checks by h2load: a generator that takes so little itself that the server's part of a Check shows."""

import os
import re
import shutil
import statistics
import subprocess

from servers import Floor, LoadError, Talos

CHECK = "/envoy.service.auth.v3.Authorization/Check"
# CPU of a cached Check against the floor's, as it was measured on a quiet machine, and how much more it may become.
BASELINE, TOLERANCE = {"TCP": 0.24, "Unix socket": 0.22}, 1.05
FIGURE = "CPU µs a Check"


def is_installed():
    return shutil.which("h2load") is not None


def compare(comparison):
    """Talos and the floor in turn, over each transport; fails when Talos takes more than it did."""
    for transport in BASELINE:
        measure(comparison, transport)
    worse = []
    for transport, baseline in BASELINE.items():
        ratio = statistics.median(ratios(comparison.table, transport))
        most = baseline * TOLERANCE
        print(f"== {transport}: {ratio:.3f} of the floor's CPU; {baseline:.2f} is known, at most {most:.3f} are good", flush=True)
        if ratio > most:
            worse.append(f"{transport}: {ratio:.3f} instead of at most {most:.3f}")
    if worse:
        raise LoadError("a cached Check takes more CPU than it did (was the machine quiet?): " + "; ".join(worse))


def ratios(table, transport):
    """The ratios of all rounds over a transport."""
    wanted = (f"h2load, {transport}", "talos / floor", FIGURE)
    return next(values for *row, values in table.rows if tuple(row) == wanted)


def measure(comparison, transport):
    """Rounds over one transport, their answers checked before and after."""
    processes, unix = comparison.processes, transport != "TCP"
    talos = Talos(processes, f"talos-h2-{transport[:4]}", unix, comparison.server_cpus)
    floor = Floor(processes, f"floor-h2-{transport[:4]}", unix, comparison.server_cpus)
    keys, message = talos.issue(comparison.profile["keys"]), processes.folder / f"{talos.port}.message"
    processes.generate("message", "--keys", keys, "--out", message)
    # As many as either answers in about the time of a round.
    rate = min(flood(comparison, server, message, 20_000)["per_second"] for server in (talos, floor))
    count = max(20_000, round(rate * comparison.profile["seconds"]))

    def one_round(server, _):
        # Who wins by wrong answers doesn't win.
        touch = ["--touch"] if not server.always_ok else []
        comparison.check_round(server, keys, "--connections", 1, "--streams", 4, *touch, seconds=0.2)
        return flood(comparison, server, message, count)

    figures = {FIGURE: lambda o: o["cpu_us"], "Checks a second": lambda o: o["per_second"]}
    comparison.compare(f"h2load, {transport}", {"talos": talos, "floor": floor}, one_round, figures)
    processes.end()


def flood(comparison, server, message, count):
    """So many Checks by h2load: the CPU time that one took the server, and how many it answered a second."""
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
    return read(done.stdout, spent, done.returncode)


def read(told, spent, code=0):
    """What h2load says of a round, and the CPU time of a Check."""
    requests = re.search(r"requests: (\d+) total, .* (\d+) succeeded, (\d+) failed, (\d+) errored", told)
    rate = re.search(r"finished in [\d.]+m?s, ([\d.]+) req/s", told)
    good = re.search(r"status codes: (\d+) 2xx", told)
    if code != 0 or not (requests and rate and good):
        raise LoadError(f"h2load said (exit code {code}):\n{told[-1500:]}")
    _, succeeded, failed, errored = map(int, requests.groups())
    if failed or errored or not succeeded:
        raise LoadError(f"h2load: {failed} failed, {errored} errored, {succeeded} succeeded")
    return {"cpu_us": spent * 1e6 / int(good[1]), "per_second": float(rate[1]), "done": int(good[1])}


def cpu_seconds(pid):
    """User and system time of a process so far."""
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
