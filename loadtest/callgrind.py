"""Runs servers under callgrind: counts their instructions, and their allocations by caller."""

import collections
import os
import re
import shutil
import subprocess

from servers import LoadError, Processes

# Allocation functions: mimalloc's as its crate uses them, and the C library's.
ALLOCATORS = ["mi_malloc_aligned", "mi_zalloc_aligned", "mi_realloc_aligned",
         "malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc"]
# Functions between an allocation function and its real caller.
INTERMEDIATE = re.compile(
    r"^(<?alloc::|<?core::|<?hashbrown::|<?std::|<mimalloc|__r(ust|dl|g)_|_?mi_|\(below main\)|malloc|calloc|realloc"
    r"|posix_memalign|aligned_alloc|<?alloc\[)")
# Number of callers by which allocations are distinguished.
CALLER_DEPTH = 12


class Counted(Processes):
    """Starts its servers under callgrind."""

    def start(self, name, command, env=None, cpus=None):
        if shutil.which("valgrind") is None:
            raise LoadError("valgrind: not found. Debian, Ubuntu: apt-get install valgrind")
        # Only allocations are distinguished by caller.
        callers = [f"--separate-callers{CALLER_DEPTH}={function}" for function in ALLOCATORS]
        callgrind = ["valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={self.directory / name}.callgrind",
                     "--separate-threads=no", "--trace-children=no", *callers]
        return super().start(name, [*callgrind, *command], env, cpus)

    def dump(self, name, server):
        """Dumps the counts since the last dump and returns the file."""
        done = subprocess.run(["callgrind_control", "--dump", str(server.pid)], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            raise LoadError(f"callgrind_control --dump: {done.stdout.strip()}")
        return max(self.directory.glob(f"{name}.callgrind.*"), key=os.path.getmtime)


def instructions(dump):
    """Returns the total number of instructions in a dump."""
    with dump.open() as lines:
        found = next((line for line in lines if re.match(r"(totals|summary): ", line)), None)
        if found is None:
            raise LoadError(f"{dump}: has no line `totals` or `summary`")
        return int(found.split()[1])


def allocations(dump):
    """Returns the number of allocations by (allocation function, callers from the nearest on)."""
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
                function, *callers = callee.split("'")
                # An allocation function called by another is one allocation.
                if function in ALLOCATORS and caller.split("'")[0] not in ALLOCATORS:
                    counts[function, tuple(callers)] += int(line[6:].split()[0])
    return counts
