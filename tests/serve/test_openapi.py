"""The OpenAPI document says what the server does, and whatever is made of it does not bring the server down."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from tests.serve.harness import Running, ok, scripted, serving

from selfee.serve.config import Limits


@pytest.fixture(scope="module")
def fast() -> Iterator[Running]:
    """A server whose answers are short, for thousands of questions."""
    with serving(scripted(text="Blue."), limits=Limits(per_key=1000, queue=1000)) as running:
        yield running


def test_every_route_is_described_with_its_body_and_its_errors(server: Running) -> None:
    document = ok(server.client.get("/openapi.json"))
    for path in (
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/selfee/chat",
        "/v1/models",
        "/health",
    ):
        assert path in document["paths"]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"], (path, method)
            assert "200" in operation["responses"]
            if method == "post":
                schema = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
                assert schema.rpartition("/")[2] in document["components"]["schemas"]
                assert {"400", "413", "415"} <= set(operation["responses"])


def test_names_of_operations_are_unique(server: Running) -> None:
    document = ok(server.client.get("/openapi.json"))
    names = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(names) == len(set(names))


@pytest.mark.minutes
@pytest.mark.timeout(1300)
def test_nothing_that_is_made_of_the_document_breaks_the_server(fast: Running) -> None:
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{fast.url}/openapi.json", "--max-examples", "20"]
    command += [
        "--checks",
        "not_a_server_error,status_code_conformance,content_type_conformance,"
        "response_schema_conformance,response_headers_conformance,unsupported_method",
    ]
    command += ["--suppress-health-check", "all", "--seed", "1", "--no-color"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
