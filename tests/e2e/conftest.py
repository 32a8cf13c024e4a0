"""What every test here starts from: the real binary, on a port and in a folder of its own.

`E2E_BINARY` names another binary than the one of the debug build.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from processes import Failed, Server, holdall_server

REPOSITORY = Path(__file__).parents[2]
DOCUMENTS = {"3.1": "holdall.json", "3.0": "holdall-3.0.json"}
OPENAPI = REPOSITORY / "openapi" / "holdall.json"
NODE_MODULES = REPOSITORY / "target" / "npm" / "node_modules"

sys.dont_write_bytecode = True


@pytest.fixture(scope="session")
def binary() -> str:
    """The binary under test."""
    path = Path(os.environ.get("E2E_BINARY", REPOSITORY / "target" / "debug" / "holdall"))
    if not path.is_file():
        raise Failed(f"{path} is missing: cargo build")
    return str(path.resolve())


@pytest.fixture
def start_holdall(binary, tmp_path):
    """Starts as many servers as a test wants, with settings from the environment by name."""
    running: list[Server] = []

    def start(**settings: str) -> Server:
        server = holdall_server(binary, tmp_path, settings)
        running.append(server)
        return server.start()

    yield start
    # Whatever a test did, the server must have lived through it and end in order.
    ended = {server.name: server.stop() for server in running}
    assert set(ended.values()) <= {0}, [server.log()[-2000:] for server in running]


@pytest.fixture
def holdall(start_holdall) -> Server:
    """One empty server."""
    return start_holdall()


@pytest.fixture(scope="session")
def document() -> dict:
    """The committed OpenAPI document."""
    return json.loads(OPENAPI.read_text())


@pytest.fixture(scope="session")
def operations(document) -> dict[str, dict]:
    """Every operation of the document, by its id."""
    return {
        operation["operationId"]: operation
        for methods in document["paths"].values()
        for method, operation in methods.items()
        if method in ("get", "put", "post", "delete", "patch", "head", "options")
    }


@pytest.fixture(scope="session")
def run():
    """Runs a tool to its end; what it said is the failure when it does not end with 0."""

    def run(*command: str | Path, **options) -> str:
        done = subprocess.run(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            **{"timeout": 300, **options},
        )
        assert done.returncode == 0, f"{command[0]} ended with {done.returncode}:\n{done.stdout}"
        return done.stdout

    return run


@pytest.fixture(scope="session")
def npm_tool():
    """The path of a tool that npm installed."""

    def npm_tool(name: str) -> Path:
        path = NODE_MODULES / ".bin" / name
        if not path.exists():
            raise Failed(f"{path} is missing: make setup-test")
        return path

    return npm_tool
