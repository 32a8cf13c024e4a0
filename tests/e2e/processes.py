"""Starts and ends servers for the tests and the measurements.

Each process gets a port of the loopback and a folder of its own and is ended by its process id.
A server of the same kind that the machine runs already is never used or touched. A program that is
missing is a failure, never a reason to skip.
"""

import os
import random
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

START_SECONDS = 60.0
STOP_SECONDS = 120.0


class Failed(Exception):
    """A server that is missing, does not start, or does not come to what was waited for."""


def find_program(name: str) -> str | None:
    """The path of a program, or `None` when it is missing."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def program(name: str, package: str) -> str:
    """The path of a program. One that is missing is a failure that names its Debian package."""
    found = find_program(name)
    if found is None:
        raise Failed(f"{name} is missing: apt-get install {package}")
    return found


def missing_programs(packages: dict[str, str]) -> list[str]:
    """The packages, by program, of all programs that are missing."""
    return sorted({package for name, package in packages.items() if find_program(name) is None})


# Below the range from which the system takes ports to outgoing connections.
_ports = iter(random.sample(range(20_000, 32_000), 12_000))


def free_port() -> int:
    """A free port of the loopback, never the same twice."""
    for port in _ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise Failed("no free port on the loopback")


def status_of(url: str) -> int:
    """The status of a GET; 0 without a response."""
    try:
        with urllib.request.urlopen(url, timeout=30) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def accepts(port: int) -> bool:
    """Whether somebody accepts connections on the port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(condition, what: str, seconds: float = START_SECONDS, pause: float = 0.005) -> float:
    """Waits for a condition and returns how long it took, in seconds."""
    started = time.perf_counter()
    while not condition():
        if time.perf_counter() - started > seconds:
            raise Failed(f"{what}: not within {seconds:.0f} s")
        time.sleep(pause)
    return time.perf_counter() - started


def clean_environment() -> dict[str, str]:
    """The environment without the settings of a holdall that the machine may run."""
    return {name: value for name, value in os.environ.items() if not name.startswith("HOLDALL_")}


class Server:
    """A running process with a folder and a port.

    `command` and `environment` are made from the server, as they need its port and folder. `ready`
    is the path that responds 200 once it serves; without one, accepting a connection is it.
    """

    def __init__(self, name: str, folder: Path, command, environment=None, ready=None):
        self.name = name
        self.port = free_port()
        self.folder = folder / f"{name}-{self.port}"
        self.folder.mkdir(parents=True)
        self._command = command(self)
        self._environment = environment(self) if environment else {}
        self._ready = ready
        self.process: subprocess.Popen | None = None

    def url(self, path: str = "") -> str:
        """The address of a path of this server."""
        return f"http://127.0.0.1:{self.port}{path}"

    def launch(self) -> None:
        """Starts the process without waiting for it."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self._command,
                cwd=self.folder,
                env=clean_environment() | self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def start(self) -> "Server":
        """Starts the process and waits until it is ready."""
        self.launch()
        try:
            wait_until(self._is_ready, f"{self.name} is ready")
        except Failed as why:
            self.stop()
            raise Failed(f"{why}\n{self.log()[-2000:]}") from None
        return self

    def _is_ready(self) -> bool:
        if self.process.poll() is not None:
            raise Failed(f"{self.name} ended at its start with {self.process.returncode}")
        if self._ready is None:
            return accepts(self.port)
        return status_of(self.url(self._ready)) == 200

    def log(self) -> str:
        """What the process has said."""
        return (self.folder / "log").read_text(errors="replace")

    def stop(self) -> int | None:
        """Asks the process to end, waits for it, and returns its exit code."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        return self.process.returncode

    def resident_bytes(self) -> int:
        """What the process holds in memory now."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise Failed(f"{self.name} has no VmRSS")


def holdall_server(binary: str, folder: Path, settings: dict[str, str]) -> Server:
    """The server under test on its embedded store, with its defaults but for `settings`."""

    def environment(server: Server) -> dict[str, str]:
        return {
            "HOLDALL_SERVER__LISTEN": f"127.0.0.1:{server.port}",
            "HOLDALL_STORE__PATH": str(server.folder / "store"),
            "HOLDALL_LOG__LEVEL": "warn",
        } | settings

    command = lambda _server: [binary, "serve"]
    return Server("holdall", folder, command, environment, ready="/readyz")
