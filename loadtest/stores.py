"""Databases and Redis of a comparison: those named by the tests' variables, or new ones of tests/services.py."""

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

import services  # noqa: E402 (in tests/)
from servers import LoadError, connects, free_port  # noqa: E402


# Variables of the tests that name a running server.
VARIABLES = {"postgres": "TALOS_TEST_POSTGRES", "mariadb": "TALOS_TEST_MARIADB"}


class Stores:
    """Creates databases, and removes them when closed."""

    def __init__(self, processes):
        self.processes = processes
        self.stack = contextlib.ExitStack()
        self.servers = {kind: os.environ.get(variable) for kind, variable in VARIABLES.items()}
        self.created = []

    def close(self):
        for dsn in self.created:
            with contextlib.suppress(LoadError):
                self.administer(dsn, "DROP DATABASE {} WITH (FORCE)" if dsn.startswith("postgres") else "DROP DATABASE {}")
        self.stack.close()

    def new(self, kind, name):
        """Creates an empty database with the current schema and returns its DSN."""
        if kind == "sqlite":
            return f"sqlite://{self.processes.directory / name}.db"
        if self.servers[kind] is None:
            started = services.Services()
            self.stack.callback(started.close)
            variables = started.start_all()
            self.servers = {kind: variables[variable] for kind, variable in VARIABLES.items()}
        dsn = f"{self.servers[kind]}/load_{name.replace('-', '_')}_{uuid.uuid4().hex[:8]}"
        self.administer(dsn, "CREATE DATABASE {}")
        self.created.append(dsn)
        migrate = [str(self.processes.binaries / "talos"), "migrate", "up", "--database", dsn]
        done = subprocess.run(migrate, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            raise LoadError(f"talos migrate up: {done.stdout.strip()}")
        return dsn

    def redis(self):
        """Starts a Redis and returns its port."""
        program = os.environ.get("TALOS_TEST_REDIS") or services.programs()["redis-server"]
        port = free_port()
        self.processes.start("redis", [program, "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        self.processes.wait_until("Redis listens", lambda: connects(("127.0.0.1", port)))
        return port

    def administer(self, dsn, statement):
        """Runs a statement about a database, whose name stands in the place of {}, on its server."""
        server, name = dsn.rsplit("/", 1)
        if server.startswith("postgres"):
            return self.psql(f"{server}/postgres", statement.format(name))
        found = re.fullmatch(r"mysql://(\w+)@([\w.]+):(\d+)", server)
        user, host, port = found.groups()
        client = services.find("mariadb")
        if client is None:
            raise LoadError("mariadb: not found. Debian, Ubuntu: apt-get install mariadb-client")
        command = [client, "--no-defaults", f"--host={host}", f"--port={port}", f"--user={user}", "--protocol=tcp", "-e"]
        done = subprocess.run([*command, statement.format(name)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            raise LoadError(f"mariadb: {done.stdout.strip()}")

    def psql(self, dsn, statement):
        """Runs a statement by psql and returns its output."""
        folders = [str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
        psql = services.find("psql", *folders)
        if psql is None:
            raise LoadError("psql: not found. Debian, Ubuntu: apt-get install postgresql-client")
        done = subprocess.run([psql, dsn, "-qAtc", statement], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise LoadError(f"psql: {done.stderr.strip()}")
        return done.stdout.strip()

    def execute(self, dsn, statement):
        """Runs a statement on the database directly and returns its single value."""
        if not dsn.startswith("sqlite:"):
            return self.psql(dsn, statement)
        with contextlib.closing(sqlite3.connect(dsn.removeprefix("sqlite://"), timeout=60)) as database:
            row = database.execute(statement).fetchone()
            database.commit()
            return row[0] if row else None

    def size(self, dsn):
        """Returns the size of a database in bytes."""
        if dsn.startswith("sqlite:"):
            path = Path(dsn.removeprefix("sqlite://"))
            return sum(file.stat().st_size for file in path.parent.glob(path.name + "*"))
        return int(self.psql(dsn, "SELECT pg_database_size(current_database())"))


def resident(pid):
    """Returns the resident memory of a process in bytes."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) * 1024


def stripped_size(binary, directory):
    """Returns the size of a binary without debug information in bytes, None if `strip` isn't installed."""
    if shutil.which("strip") is None:
        return None
    copy = Path(directory) / "stripped"
    subprocess.run(["strip", "--strip-debug", "-o", str(copy), str(binary)], check=True)
    return copy.stat().st_size
