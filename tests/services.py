#!/usr/bin/env python3
"""The real servers that the tests run against: PostgreSQL, PgBouncer before it, MariaDB, and Redis.

Each is started on a free port of the loopback address, with its data in a temporary directory, and ended with whoever
started it. As a command, starts all, prints the variables that the tests want, and goes on until it is stopped.
"""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PACKAGES = ["postgresql", "pgbouncer", "mariadb-server", "redis-server", "prometheus", "valgrind"]
POSTGRES_PROGRAMS = ["initdb", "postgres", "pg_basebackup"]
# Seconds that a server may take to answer its first connection.
TIMEOUT = 60


class ServiceError(Exception):
    """A server can't be had or doesn't start; the text says why and what to do."""


def free_port():
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def find(program, *folders):
    """The path of a program, on PATH or where Debian puts it; None when it isn't installed."""
    return shutil.which(program, path=os.pathsep.join([os.environ.get("PATH", ""), *folders]))


def programs():
    """The paths of the programs; installs Debian's packages on first use where that is possible."""
    postgres = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    wanted = {"initdb": postgres, "postgres": postgres, "pg_basebackup": postgres, "pgbouncer": ["/usr/sbin"],
              "mariadb-install-db": [], "mariadbd": ["/usr/sbin"], "redis-server": [],
              "promtool": [], "valgrind": []}
    found = {name: find(name, *map(str, folders)) for name, folders in wanted.items()}
    # All of one installation: what stands on PATH may be a part of it, or a wrapper.
    whole = [folder for folder in postgres if all((folder / name).exists() for name in POSTGRES_PROGRAMS)]
    if whole:
        found.update({name: str(whole[0] / name) for name in POSTGRES_PROGRAMS})
    missing = [name for name, path in found.items() if path is None]
    if not missing:
        return found
    install(PACKAGES, missing)
    return programs()


def install(packages, missing=()):
    """Installs Debian's packages, as root; fails with the command to run otherwise."""
    if os.geteuid() != 0 or not find("apt-get"):
        raise ServiceError(f"{', '.join(missing or packages)}: not found. Debian, Ubuntu: sudo apt-get install {' '.join(packages)}")
    apt = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120"]
    # The installation must not start services: the tests start their own.
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in [["update"], ["install", "--yes", "--no-install-recommends", *packages]]:
            done = subprocess.run([*apt, *command], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            if done.returncode != 0:
                raise ServiceError(f"apt-get {command[0]} failed:\n{done.stdout.decode(errors='replace')}")
    finally:
        if ours:
            policy.unlink()


class Services:
    """The running servers, until they are closed."""

    def __init__(self):
        self.stack = contextlib.ExitStack()
        self.variables = {}

    def start_all(self):
        """Starts them; returns the variables that the tests want."""
        try:
            paths = programs()
            # The tests start their own: they kill it, freeze it and give it certificates.
            self.variables["TALOS_TEST_REDIS"] = paths["redis-server"]
            # Tests that take servers apart start their own.
            self.variables["TALOS_TEST_POSTGRES_BIN"] = str(Path(paths["initdb"]).parent)
            self.variables["TALOS_TEST_MARIADBD"] = paths["mariadbd"]
            self.variables["TALOS_TEST_MARIADB_INSTALL"] = paths["mariadb-install-db"]
            # A tool that checks our metrics and alert rules.
            self.variables["TALOS_TEST_PROMTOOL"] = paths["promtool"]
            base = Path(tempfile.mkdtemp(prefix="talos-services-"))
            self.stack.callback(shutil.rmtree, base, ignore_errors=True)
            base.chmod(0o755)
            postgres_port = self.start_postgres(paths, base / "postgres")
            self.start_pgbouncer(paths, base / "pgbouncer", postgres_port)
            self.start_mariadb(paths, base / "mariadb")
            return self.variables
        except BaseException:
            self.stack.close()
            raise

    def close(self):
        """Ends them."""
        self.stack.close()

    def start_postgres(self, paths, folder):
        """PostgreSQL; speaks TCP only, with TLS for whoever asks for it, and trusts everybody on loopback."""
        as_user = unprivileged(folder, "postgres")
        run([*as_user, paths["initdb"], "--username=postgres", "--auth=trust", "--no-sync", "--encoding=UTF8",
             "--locale=C.UTF-8", f"--pgdata={folder}"], folder)
        port = free_port()
        authority, certificate = folder.with_suffix(".crt"), folder / "server.crt"
        # A self-signed certificate of an authority, for this server alone.
        run([*as_user, "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
             "-days", "2", "-subj", "/CN=PostgreSQL", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
             "-addext", "basicConstraints=critical,CA:FALSE",
             "-keyout", str(folder / "server.key"), "-out", str(certificate)], folder)
        shutil.copyfile(certificate, authority)
        settings = {"port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off",
                    "max_connections": 1200, "shared_buffers": "64MB", "ssl": "on"}
        options = [option for name, value in settings.items() for option in ("-c", f"{name}={value}")]
        self.start([*as_user, paths["postgres"], "-D", str(folder), *options], folder, port, signal.SIGINT)
        self.variables["TALOS_TEST_POSTGRES_CA"] = str(authority)
        self.variables["TALOS_TEST_POSTGRES"] = f"postgres://postgres@127.0.0.1:{port}"
        return port

    def start_pgbouncer(self, paths, folder, postgres_port):
        """PgBouncer in transaction mode, before PostgreSQL."""
        as_user = unprivileged(folder, "postgres")
        port = free_port()
        (folder / "users.txt").write_text('"postgres" ""\n')
        (folder / "pgbouncer.ini").write_text(
            f"[databases]\n* = host=127.0.0.1 port={postgres_port}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\npool_mode = transaction\n"
            f"auth_type = trust\nauth_file = {folder}/users.txt\nmax_client_conn = 2000\ndefault_pool_size = 10\n"
            "ignore_startup_parameters = extra_float_digits\n"
        )
        self.start([*as_user, paths["pgbouncer"], str(folder / "pgbouncer.ini")], folder, port, signal.SIGINT)
        self.variables["TALOS_TEST_PGBOUNCER"] = f"postgres://postgres@127.0.0.1:{port}"

    def start_mariadb(self, paths, folder):
        """MariaDB, which stands for MySQL, too."""
        as_user = unprivileged(folder, "mysql")
        run([*as_user, paths["mariadb-install-db"], "--no-defaults", "--auth-root-authentication-method=normal",
             "--skip-test-db", f"--datadir={folder}", f"--tmpdir={folder}"], folder)
        port = free_port()
        # A tmpdir of its own, as a server that starts deletes the temporary tables that it finds there.
        self.start([*as_user, paths["mariadbd"], "--no-defaults", f"--datadir={folder}", f"--tmpdir={folder}",
                    f"--port={port}", "--bind-address=127.0.0.1", f"--socket={folder}/socket", f"--pid-file={folder}/pid",
                    "--innodb-flush-log-at-trx-commit=0", "--max-connections=600", "--skip-name-resolve"],
                   folder, port, signal.SIGTERM)
        self.variables["TALOS_TEST_MARIADB"] = f"mysql://root@127.0.0.1:{port}"

    def start(self, command, folder, port, stop):
        """Starts a server, waits until it accepts connections, and ends it with the stack."""
        log = folder.with_suffix(".log").open("wb")
        self.stack.callback(log.close)
        # Signals for us, from a terminal, are not for it: it ends when the stack does.
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                   start_new_session=True)
        self.stack.callback(end, process, stop)
        deadline = time.monotonic() + TIMEOUT
        while not accepts(port):
            if process.poll() is not None or time.monotonic() > deadline:
                text = Path(log.name).read_text(errors="replace")
                raise ServiceError(f"`{' '.join(command)}` doesn't answer on port {port}:\n{text}")
            time.sleep(0.05)


def unprivileged(folder, user):
    """Makes a folder that `user` owns, and what to put before a command to run it as that user, if we are root."""
    folder.mkdir()
    if os.geteuid() != 0:
        return []
    account = pwd.getpwnam(user)
    os.chown(folder, account.pw_uid, account.pw_gid)
    # setpriv becomes the command: no process in between that would keep signals to itself.
    return ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]


def accepts(port):
    """Returns true if something listens there."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def run(command, folder):
    """Runs a command to its end, in the folder above: what the user can't read must not be the current one."""
    done = subprocess.run(command, cwd=folder.parent, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    if done.returncode != 0:
        raise ServiceError(f"`{' '.join(command)}` failed:\n{done.stdout.decode(errors='replace')}")


def end(process, stop):
    """Asks a server to end, and makes it."""
    process.send_signal(stop)
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def main():
    """Starts all and waits for a signal."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    servers = Services()
    try:
        for name, value in servers.start_all().items():
            print(f"export {name}={value}", flush=True)
        signal.pause()
    finally:
        servers.close()


if __name__ == "__main__":
    try:
        main()
    except ServiceError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        pass
