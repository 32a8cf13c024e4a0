"""Requests made from the OpenAPI document find no answer that it does not describe."""

import sys
from pathlib import Path

from conftest import OPENAPI, REPOSITORY

CONFIGURATION = REPOSITORY / "tests" / "e2e" / "schemathesis.toml"


def test_the_server_answers_as_the_document_says(holdall, run, tmp_path):
    run(
        *(Path(sys.executable).with_name("schemathesis"), "--config-file", CONFIGURATION),
        *("run", OPENAPI, "--url", holdall.url()),
        cwd=tmp_path,
        timeout=300,
    )
