"""Requests made from the OpenAPI document find no response that it does not describe."""

import sys
from pathlib import Path

from conftest import OPENAPI, REPOSITORY

CONFIGURATION = REPOSITORY / "tests" / "e2e" / "schemathesis.toml"
TOKEN = "a-token-of-the-tests"


def test_the_server_answers_as_the_document_says(start_holdall, run, tmp_path):
    holdall = start_holdall(
        # With tokens, because the document says that every resource asks for one.
        HOLDALL_ACCESS__TOKENS=f"""[
            {{ name = "all", token = "{TOKEN}", scopes = ["read", "write", "metrics", "admin"] }}
        ]""",
        # Made-up requests ask to wait, for something that never happens.
        HOLDALL_TIMEOUTS__MAX_WAIT="200ms",
        HOLDALL_TIMEOUTS__HEARTBEAT="100ms",
    )
    run(
        *(Path(sys.executable).with_name("schemathesis"), "--config-file", CONFIGURATION),
        *("run", OPENAPI, "--url", holdall.url(), "--header", f"Authorization: Bearer {TOKEN}"),
        cwd=tmp_path,
    )
