"""The databases and the Redis of a comparison: those that the tests' variables name, or new ones of tests/services.py."""

import contextlib
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import uuid
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import services  # noqa: E402 (it lies with the tests)
from servers import LoadError, connects, free_port  # noqa: E402


class Stores:
    """Makes databases, and ends with whoever asked for them what it started."""

    def __init__(self, processes):
        self.processes = processes
        self.stack = contextlib.ExitStack()
        self.server = os.environ.get("TALOS_TEST_POSTGRES")
        self.made = []

    def close(self):
        for dsn in self.made:
            with contextlib.suppress(LoadError):
                self.psql(f"{self.server}/postgres", f"DROP DATABASE {dsn.rsplit('/', 1)[1]} WITH (FORCE)")
        self.stack.close()

    def new(self, kind, name):
        """A new, empty database with the current schema; its DSN."""
        if kind == "sqlite":
            return f"sqlite://{self.processes.folder / name}.db"
        if self.server is None:
            started = services.Services()
            self.stack.callback(started.close)
            self.server = started.start_all()["TALOS_TEST_POSTGRES"]
        dsn = f"{self.server}/load_{name.replace('-', '_')}_{uuid.uuid4().hex[:8]}"
        self.psql(f"{self.server}/postgres", f"CREATE DATABASE {dsn.rsplit('/', 1)[1]}")
        self.made.append(dsn)
        migrate = [str(self.processes.binaries / "talos"), "migrate", "up", "--database", dsn]
        done = subprocess.run(migrate, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            raise LoadError(f"talos migrate up: {done.stdout.strip()}")
        return dsn

    def redis(self):
        """A new Redis; its port."""
        program = os.environ.get("TALOS_TEST_REDIS") or services.programs()["redis-server"]
        port = free_port()
        self.processes.start("redis", [program, "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        self.processes.wait_until("Redis listens", lambda: connects(("127.0.0.1", port)))
        return port

    def psql(self, dsn, statement):
        """What PostgreSQL says to a statement."""
        folders = [str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
        psql = services.find("psql", *folders)
        if psql is None:
            raise LoadError("psql: not found. Debian, Ubuntu: apt-get install postgresql-client")
        done = subprocess.run([psql, dsn, "-qAtc", statement], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise LoadError(f"psql: {done.stderr.strip()}")
        return done.stdout.strip()

    def execute(self, dsn, statement):
        """The one value that a statement gives, behind Talos's back."""
        if not dsn.startswith("sqlite:"):
            return self.psql(dsn, statement)
        with contextlib.closing(sqlite3.connect(dsn.removeprefix("sqlite://"), timeout=60)) as database:
            row = database.execute(statement).fetchone()
            database.commit()
            return row[0] if row else None

    def size(self, dsn):
        """Bytes that a database takes."""
        if dsn.startswith("sqlite:"):
            path = Path(dsn.removeprefix("sqlite://"))
            return sum(file.stat().st_size for file in path.parent.glob(path.name + "*"))
        return int(self.psql(dsn, "SELECT pg_database_size(current_database())"))


def resident(pid):
    """Bytes of a process's memory that are resident."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) * 1024


def stripped_size(binary, folder):
    """Bytes of a binary without debug information, as a release has it; None without the tool for that."""
    if shutil.which("strip") is None:
        return None
    copy = Path(folder) / "stripped"
    subprocess.run(["strip", "--strip-debug", "-o", str(copy), str(binary)], check=True)
    return copy.stat().st_size
