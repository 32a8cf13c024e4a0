"""The OpenAPI documents: what is committed is what the binary prints and the server publishes."""

import json

import pytest

from conftest import DOCUMENTS, REPOSITORY
from expositions import get


@pytest.mark.parametrize("version", DOCUMENTS)
def test_the_committed_document_is_what_the_binary_prints(version, binary, run):
    committed = (REPOSITORY / "openapi" / DOCUMENTS[version]).read_text()
    assert run(binary, "openapi", "--version", version) == committed, "make openapi"


def test_the_committed_table_of_routes_is_what_the_binary_prints(binary, run):
    committed = (REPOSITORY / "openapi" / "routes.txt").read_text()
    assert run(binary, "routes") == committed, "make openapi"


def test_the_server_publishes_the_committed_documents(holdall):
    for path, name in (("/openapi.json", "holdall.json"), ("/openapi-3.0.json", "holdall-3.0.json")):
        committed = json.loads((REPOSITORY / "openapi" / name).read_text())
        assert json.loads(get(holdall.url(path))[0]) == committed
