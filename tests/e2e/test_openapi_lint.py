"""The committed OpenAPI documents are valid, and linters and generators have no complaint.

Needs no server: `make lint` runs this file, `make test` the others.
"""

import json

import pytest
from openapi_spec_validator import validate

from conftest import DOCUMENTS, REPOSITORY


@pytest.mark.parametrize("version", DOCUMENTS)
def test_the_document_is_valid(version):
    document = json.loads((REPOSITORY / "openapi" / DOCUMENTS[version]).read_text())
    assert document["openapi"].startswith(version)
    validate(document)


@pytest.mark.parametrize("version", DOCUMENTS)
def test_the_linter_has_nothing_to_say(version, npm_tool, run):
    config = REPOSITORY / "tests" / "e2e" / "redocly.yaml"
    document = REPOSITORY / "openapi" / DOCUMENTS[version]
    out = run(npm_tool("redocly"), "lint", f"--config={config}", "--format=json", document)
    # The report stands among notices of the tool itself.
    report, _ = json.JSONDecoder().raw_decode(out, out.index("{\n"))
    said = [
        f"{problem['ruleId']} at {problem['location'][0]['pointer']}: {problem['message']}"
        for problem in report["problems"]
    ]
    assert report["totals"] == {"errors": 0, "warnings": 0, "ignored": 0}, said
    assert said == []


def test_every_operation_says_how_it_refuses(operations):
    # Also health: the head of any request can be ambiguous.
    silent = {name for name, operation in operations.items() if "400" not in operation["responses"]}
    assert silent == set()
