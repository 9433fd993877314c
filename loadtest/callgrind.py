"""Servers under callgrind: instructions that they take, and calls of the allocator with who makes them."""

import collections
import os
import re
import shutil
import subprocess

from servers import LoadError, Processes

# Where code asks for memory: mimalloc's doors as its crate uses them, and the C library's.
DOORS = ["mi_malloc_aligned", "mi_zalloc_aligned", "mi_realloc_aligned",
         "malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc"]
# What stands between a door and whoever wants the memory.
PLUMBING = re.compile(
    r"^(<?alloc::|<?core::|<?hashbrown::|<?std::|<mimalloc|__r(ust|dl|g)_|_?mi_|\(below main\)|malloc|calloc|realloc"
    r"|posix_memalign|aligned_alloc|<?alloc\[)")
# How many callers a call of the allocator is told apart by.
DEPTH = 12


class Counted(Processes):
    """Starts its servers under callgrind."""

    def start(self, name, command, env=None, cpus=None):
        if shutil.which("valgrind") is None:
            raise LoadError("valgrind: not found. Debian, Ubuntu: apt-get install valgrind")
        # What a call costs doesn't depend on who makes it, so callers are told apart only where memory is asked for.
        callers = [f"--separate-callers{DEPTH}={door}" for door in DOORS]
        callgrind = ["valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={self.folder / name}.callgrind",
                     "--separate-threads=no", "--trace-children=no", *callers]
        return super().start(name, [*callgrind, *command], env, cpus)

    def dump(self, name, server):
        """What was counted since the last dump: the file that it stands in."""
        done = subprocess.run(["callgrind_control", "--dump", str(server.pid)], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            raise LoadError(f"callgrind_control --dump: {done.stdout.strip()}")
        return max(self.folder.glob(f"{name}.callgrind.*"), key=os.path.getmtime)


def instructions(dump):
    """All that were counted."""
    with dump.open() as lines:
        found = next((line for line in lines if re.match(r"(totals|summary): ", line)), None)
        if found is None:
            raise LoadError(f"{dump}: no total")
        return int(found.split()[1])


def allocations(dump):
    """How often memory was asked for, by (door, callers from the nearest on)."""
    names, caller, callee, counts = {}, "", "", collections.Counter()

    def name(text):
        number, _, rest = text.strip().partition(" ")
        if rest:
            names[number] = rest
        return names.get(number, number)

    with dump.open(errors="replace") as lines:
        for line in lines:
            if line.startswith("fn="):
                caller = name(line[3:])
            elif line.startswith("cfn="):
                callee = name(line[4:])
            elif line.startswith("calls="):
                door, *callers = callee.split("'")
                # A door that another door goes through is one asking.
                if door in DOORS and caller.split("'")[0] not in DOORS:
                    counts[door, tuple(callers)] += int(line[6:].split()[0])
    return counts
