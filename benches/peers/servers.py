"""The servers that are measured: holdall and its peers, each with its settings spelled out."""

import functools
import json
import shutil
from pathlib import Path

from processes import Server, free_port, holdall_server, program


class Fleet:
    """Every server of a run; ends them all, also when the run fails."""

    def __init__(self, binaries: list[str], folder: Path):
        """`binaries` are the measured holdall and, in a comparison, the one before it."""
        self._binaries = binaries
        self._folder = folder
        self._running: list[Server] = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop_all()

    def stop_all(self) -> None:
        """Ends every server that runs, the latest first: a holdall before its Redis."""
        self.stop(*reversed(self._running))

    def stop(self, *servers: Server) -> None:
        """Ends these servers and removes their folders."""
        for server in list(servers):
            server.stop()
            shutil.rmtree(server.folder, ignore_errors=True)
            self._running.remove(server)

    def _start(self, server: Server) -> Server:
        self._running.append(server)
        return server.start()

    def _add(self, name: str, **options) -> Server:
        return self._start(Server(name, self._folder, **options))

    def holdall(self, sync: str = "full", store: str = "embedded", settings=None) -> list[Server]:
        """The measured server and, in a comparison, the one before it."""
        return [start() for start in self.starters(sync, store, settings)]

    def starters(self, sync: str = "full", store: str = "embedded", settings=None):
        """Functions that start a measured server each, with the defaults but for the arguments."""

        def start(binary: str) -> Server:
            own = {"HOLDALL_STORE__SYNC": sync, "HOLDALL_STORE__BACKEND": store} | (settings or {})
            if store == "redis":
                own["HOLDALL_STORE__REDIS__URL"] = f"redis://127.0.0.1:{self.redis().port}"
            return self._start(holdall_server(binary, self._folder, own))

        return [functools.partial(start, binary) for binary in self._binaries]

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

    def redis(self) -> Server:
        """A redis-server that persists nothing."""
        return self._add(
            "redis",
            command=lambda server: [
                program("redis-server", "redis-server"),
                *("--port", str(server.port), "--bind", "127.0.0.1", "--dir", str(server.folder)),
                *("--save", "", "--appendonly", "no"),
            ],
            ready=None,
        )

    def webdis(self) -> Server:
        """Webdis with a redis-server of its own."""
        redis = self.redis()

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
        """One member of etcd; each put is on disk before its response."""
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
