"""A TypeScript client with types generated from the committed document calls every operation."""

import json
import shutil

from conftest import NODE_MODULES, OPENAPI, REPOSITORY
from processes import program

SOURCES = REPOSITORY / "tests" / "e2e" / "typescript"


PIPELINE = {
    "HOLDALL_PIPELINES__VIEWS__KIND": "sum",
    "HOLDALL_PIPELINES__VIEWS__WINDOW": "1h",
    "HOLDALL_PIPELINES__VIEWS__RETENTION": "7days",
    "HOLDALL_PIPELINES__VIEWS__DEDUP": "1h",
    "HOLDALL_PIPELINES__VIEWS__HOOK__STREAM": "true",
}


def test_every_operation_has_types_and_works(start_holdall, document, npm_tool, run):
    holdall = start_holdall(**PIPELINE)
    folder = REPOSITORY / "target" / "e2e" / "typescript"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "node_modules").symlink_to(NODE_MODULES)
    for name in ("calls.ts", "tsconfig.json", "package.json"):
        shutil.copy(SOURCES / name, folder)
    run(npm_tool("openapi-typescript"), OPENAPI, "--output", folder / "schema.ts")
    run(npm_tool("tsc"), "--project", folder)

    out = run(program("node", "nodejs"), folder / "out" / "calls.js", holdall.url())

    called = json.loads(out.splitlines()[-1])
    documented = [
        f"{method.upper()} {path}"
        for path, methods in document["paths"].items()
        for method in methods
        if method in ("get", "put", "post", "delete", "patch")
    ]
    assert called == sorted(documented)
