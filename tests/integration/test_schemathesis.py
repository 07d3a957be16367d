"""What the OpenAPI document promises, tried by schemathesis on a real server: fixed seeds, at most a minute each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from installed_fakes import FILES_EXAMPLE, SCRIPTED, install, install_package
from running_server import RunningServer, running_server
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

SUPPORT = Path(__file__).parents[1] / "support"
SECONDS = 150  # alone it takes 20; other tests run beside it
# Native routes take `"1"` and `true` for 1, as their queries must: that is no rejection of what the document forbids.
# A provider that cannot do what was asked says 501.
SETTINGS = """\
[checks.positive_data_acceptance]
enabled = false

[checks.unsupported_method]
enabled = false

[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", "501"]

[checks.negative_data_rejection]
enabled = false

[[operations]]
include-path-regex = "^/v1/"
checks.negative_data_rejection.enabled = true
"""
SAMPLE = """\
providers:
  inference: [{provider_id: echo, provider_type: "remote::sample", config: {models: [m]}}]
  safety: [{provider_id: s, provider_type: "remote::sample"}]
  memory: [{provider_id: mem, provider_type: "remote::sample"}]
  agents: [{provider_id: a, provider_type: "remote::sample"}]
  telemetry: [{provider_id: t, provider_type: "remote::sample"}]
memory_banks: [{identifier: bank, type: keyword}]
"""
FILES = """\
providers:
  files: [{provider_id: disk, provider_type: local}]
"""
TRANSLATED = """\
providers:
  inference: [{provider_id: p, provider_type: scripted}]
"""


@dataclass(frozen=True)
class Tried:
    """config: what is served. only: the paths that are tried. examples: for each operation."""

    config: str
    only: str
    examples: int
    seed: int = 20261128


A_PACKAGE = Tried(FILES, "^/folders", 15)
Case = tuple[Tried, RunningServer]
TRIED = {"sample providers": Tried(SAMPLE, "^/", 10), "translated": Tried(TRANSLATED, "^/(v1|inference)/", 25)}


@pytest.fixture(scope="module", params=list(TRIED))
def tried(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    with served(TRIED[request.param], tmp_path_factory.mktemp("served")) as case:
        yield case


@pytest.fixture(scope="module")
def of_a_package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    with served(A_PACKAGE, tmp_path_factory.mktemp("served")) as case:
        yield case


@contextmanager
def served(chosen: Tried, folder: Path) -> Iterator[Case]:
    install(folder, "llamastack-provider-scripted", SCRIPTED)
    install_package(folder, FILES_EXAMPLE)
    folder.joinpath("run.yaml").write_text(chosen.config)
    paths = os.pathsep.join(map(str, (folder, SUPPORT, FILES_EXAMPLE / "src")))
    with running_server(folder / "run.yaml", home=folder / "home", environment={"PYTHONPATH": paths}) as server:
        yield chosen, server


def document_of(server: RunningServer) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{server.url}/openapi.json").json()
    return found


def all_in(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, Mapping):
        yield dict(value)
    for inside in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        yield from all_in(inside)


def naming_what_is_there(document: dict[str, Any]) -> dict[str, Any]:
    """The document with the names that requests need, so that they reach a provider."""
    names = {"model": "m", "shield_type": "sample-words", "bank_id": "bank"}
    for name, schema in document["components"]["schemas"].items():
        if name.endswith("Request"):
            for field, value in names.items():
                if schema.get("properties", {}).get(field, {}).get("type") == "string":
                    schema["properties"][field]["enum"] = [value]
    return document


def test_the_server_does_what_its_document_says(tried: Case, tmp_path: Path) -> None:
    chosen, server = tried
    tmp_path.joinpath("openapi.json").write_text(json.dumps(naming_what_is_there(document_of(server))))
    tmp_path.joinpath("schemathesis.toml").write_text(SETTINGS)
    command = [
        *(str(Path(sys.executable).with_name("schemathesis")), "--no-color", "run", "openapi.json"),
        *("--url", server.url, "--include-path-regex", chosen.only, "--phases", "examples,coverage,fuzzing"),
        *("--seed", str(chosen.seed), "--generation-database", "none", "--max-examples", str(chosen.examples)),
        *("--workers", "1", "--request-timeout", "10", "--continue-on-failure"),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stdout
    assert "Traceback" not in "".join(server.output)


def test_the_server_does_what_the_document_of_an_api_of_a_package_says(of_a_package: Case, tmp_path: Path) -> None:
    test_the_document_is_valid(of_a_package)
    test_the_server_does_what_its_document_says(of_a_package, tmp_path)


def test_the_document_is_valid(tried: Case) -> None:
    document = document_of(tried[1])
    OPENAPI_31_VALIDATOR.validate(document)
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    for part in all_in(document):
        if "$ref" in part:
            at: Any = document
            for step in part["$ref"].removeprefix("#/").split("/"):
                at = at[step]
    ids = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(ids) == len(set(ids))


def test_errors_have_the_shape_of_their_surface(tried: Case) -> None:
    document = document_of(tried[1])
    for path, operations in document["paths"].items():
        wanted = "OpenAIError" if path.startswith("/v1/") else "Error"
        for operation in operations.values():
            for status, response in operation["responses"].items():
                if status != "200":
                    assert response == {"$ref": f"#/components/responses/{wanted}{status}"}
            assert {"400", "413", "429", "500", "503"} <= set(operation["responses"])
            assert ("501" in operation["responses"]) == (not path.startswith("/v1/"))
    for name, body in (("Error", "/inference/completion"), ("OpenAIError", "/v1/completions")):
        reply = httpx.post(f"{tried[1].url}{body}", json={"model": "nobody", "prompt": "x", "content": 1})
        schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        jsonschema.validate(reply.json(), schema)


def test_discriminators_are_required_and_provider_data_is_json(tried: Case) -> None:
    document = document_of(tried[1])
    schemas = document["components"]["schemas"]
    unions = [part for part in all_in(document) if "discriminator" in part and "oneOf" in part]
    assert unions
    for union in unions:
        for member in union["oneOf"]:
            assert union["discriminator"]["propertyName"] in schemas[member["$ref"].rpartition("/")[2]]["required"]
    parameter = document["components"]["parameters"]["ProviderData"]
    assert parameter["content"]["application/json"]["schema"]["type"] == "object"
    for operations in document["paths"].values():
        for operation in operations.values():
            assert {"$ref": "#/components/parameters/ProviderData"} in operation["parameters"]
