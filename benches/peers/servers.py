"""Starts and stops the servers that are measured: holdall and its peers.

Each gets a port of the loopback, a folder of its own and explicit settings, and is ended by its
process id. A server of the same kind that the machine runs already is never used or touched.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

START_SECONDS = 60.0
STOP_SECONDS = 120.0


def program(name: str, package: str) -> str:
    """The path of a program; ends the run with the package that has it when it is missing."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is None:
        sys.exit(f"{name} is missing: apt-get install {package}")
    return found


_given_ports: set[int] = set()


def free_port() -> int:
    """A free port below the range that the system gives to outgoing connections."""
    for port in range(20_000, 32_000):
        if port in _given_ports:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given_ports.add(port)
        return port
    sys.exit("no free port on the loopback")


def status_of(url: str) -> int:
    """The status of a GET; 0 when nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def wait_until(condition, what: str, seconds: float = START_SECONDS, pause: float = 0.005) -> float:
    """Waits for a condition and returns how long it took; ends the run when it does not come."""
    started = time.perf_counter()
    while not condition():
        if time.perf_counter() - started > seconds:
            sys.exit(f"{what}: not within {seconds:.0f} s")
        time.sleep(pause)
    return time.perf_counter() - started


class Server:
    """A running process with a folder and a port.

    `ready` is the path that answers 200 once it serves; without one, accepting a connection is it.
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
        self.start()

    def url(self, path: str) -> str:
        """The address of a path of this server."""
        return f"http://127.0.0.1:{self.port}{path}"

    def launch(self) -> None:
        """Starts the process without waiting for it."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self._command,
                cwd=self.folder,
                env=os.environ | self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def start(self) -> None:
        """Starts the process and waits until it is ready."""
        self.launch()
        wait_until(self._is_ready, f"{self.name} is ready (see {self.folder}/log)")

    def _is_ready(self) -> bool:
        if self.process.poll() is not None:
            log = (self.folder / "log").read_text(errors="replace")[-2000:]
            sys.exit(f"{self.name} ended at start:\n{log}")
        if self._ready is None:
            return _accepts(self.port)
        return status_of(self.url(self._ready)) == 200

    def stop(self) -> None:
        """Asks the process to end and waits for it."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def resident_bytes(self) -> int:
        """What the process holds in memory now."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError("the process has no VmRSS")


class Fleet:
    """Every server of a run; ends them all, also when the run fails."""

    def __init__(self, holdall: str, folder: Path):
        self._holdall = holdall
        self._folder = folder
        self._running: list[Server] = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop_all()

    def stop_all(self) -> None:
        """Ends every server that runs."""
        self.stop(*self._running)

    def stop(self, *servers: Server) -> None:
        """Ends these servers and removes their folders."""
        for server in list(servers):
            server.stop()
            shutil.rmtree(server.folder, ignore_errors=True)
            self._running.remove(server)

    def _add(self, *arguments, **options) -> Server:
        server = Server(*arguments, folder=self._folder, **options)
        self._running.append(server)
        return server

    def holdall(self, sync: str = "full", **settings: str) -> Server:
        """The measured server on its embedded store, with its defaults but for the limits of size."""

        def environment(server):
            return {
                "HOLDALL_SERVER__LISTEN": f"127.0.0.1:{server.port}",
                "HOLDALL_STORE__PATH": str(server.folder / "store"),
                "HOLDALL_STORE__SYNC": sync,
                "HOLDALL_LOG__LEVEL": "warn",
            } | settings

        return self._add(
            "holdall",
            command=lambda server: [self._holdall, "serve"],
            environment=environment,
            ready="/readyz",
        )

    def pushgateway(self, persistence: bool) -> Server:
        """Pushgateway; with persistence it writes its file as often as holdall writes series."""

        def command(server):
            file = server.folder / "metrics.gob" if persistence else ""
            return [
                program("prometheus-pushgateway", "prometheus-pushgateway"),
                f"--web.listen-address=127.0.0.1:{server.port}",
                f"--persistence.file={file}",
                "--persistence.interval=1s",
                "--log.level=warn",
            ]

        name = "pushgateway-persistent" if persistence else "pushgateway"
        return self._add(name, command=command, ready="/-/ready")

    def victoria_metrics(self) -> Server:
        """VictoriaMetrics, single node."""
        return self._add(
            "victoria-metrics",
            command=lambda server: [
                program("victoria-metrics", "victoria-metrics"),
                f"-httpListenAddr=127.0.0.1:{server.port}",
                f"-storageDataPath={server.folder}/data",
                "-loggerLevel=WARN",
            ],
            ready="/health",
        )

    def webdis(self) -> Server:
        """Webdis with a redis-server of its own that persists nothing."""

        redis = self._add(
            "redis",
            command=lambda server: [
                program("redis-server", "redis-server"),
                *("--port", str(server.port), "--bind", "127.0.0.1", "--dir", str(server.folder)),
                *("--save", "", "--appendonly", "no"),
            ],
            ready=None,
        )

        def command(server):
            settings = {
                "redis_host": "127.0.0.1",
                "redis_port": redis.port,
                "http_host": "127.0.0.1",
                "http_port": server.port,
                "threads": 2,
                "pool_size": 20,
                "daemonize": False,
                "database": 0,
                "verbosity": 0,
                "logfile": str(server.folder / "webdis.log"),
            }
            file = server.folder / "webdis.json"
            file.write_text(json.dumps(settings))
            return [program("webdis", "webdis"), str(file)]

        return self._add("webdis", command=command, ready="/PING")

    def etcd(self) -> Server:
        """One member of etcd; each put is on disk before its answer."""
        peer = free_port()

        def command(server):
            client = f"http://127.0.0.1:{server.port}"
            return [
                program("etcd", "etcd-server"),
                *("--name", "bench", "--data-dir", f"{server.folder}/data"),
                *("--listen-client-urls", client, "--advertise-client-urls", client),
                *("--listen-peer-urls", f"http://127.0.0.1:{peer}"),
                *("--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}"),
                *("--initial-cluster", f"bench=http://127.0.0.1:{peer}"),
                *("--logger", "zap", "--log-level", "warn"),
            ]

        return self._add("etcd", command=command, ready="/health")

    def nginx(self, root: Path) -> Server:
        """nginx that sends files from `root`."""

        def command(server):
            file = server.folder / "nginx.conf"
            file.write_text(
                f"""daemon off; worker_processes 2; pid {server.folder}/pid;
                error_log {server.folder}/log warn;
                events {{ worker_connections 256; }}
                http {{
                    access_log off; sendfile on; tcp_nopush on; default_type text/plain;
                    client_body_temp_path {server.folder}/body; proxy_temp_path {server.folder}/proxy;
                    fastcgi_temp_path {server.folder}/fcgi; uwsgi_temp_path {server.folder}/uwsgi;
                    scgi_temp_path {server.folder}/scgi;
                    server {{
                        listen 127.0.0.1:{server.port};
                        location = /ready {{ return 200; }}
                        location / {{ root {root}; }}
                    }}
                }}"""
            )
            return [program("nginx", "nginx-light"), "-c", str(file), "-p", str(server.folder)]

        return self._add("nginx", command=command, ready="/ready")


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
