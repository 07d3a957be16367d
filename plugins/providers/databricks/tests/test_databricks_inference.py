"""The provider with a real server behind it, at the paths of Databricks; the endpoints' states are the tests'."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from backends.llama_server import MODEL
from backends.openai_checks import KEY, OWN_KEY, OpenAIDialectChecks, Running
from backends.openai_conformance import OpenAIDialectConformance
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from llamastack.provider import ObjectNotFoundError

pytestmark = pytest.mark.anyio
STATES = {MODEL: "READY", "being-made": "NOT_READY"}
LOOK = "/api/2.0/serving-endpoints/"


def endpoint(request: Request) -> Response:
    """As https://docs.databricks.com/api/workspace/servingendpoints/get has it."""
    name = request.url.path.removeprefix(LOOK)
    if name not in STATES:
        missing = {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": f"Endpoint with name '{name}' does not exist."}
        return JSONResponse(missing, 404)
    state = {"ready": STATES[name], "config_update": "NOT_UPDATING"}
    return JSONResponse({"name": name, "state": state, "task": "llm/v1/chat"})


class TestDatabricks(OpenAIDialectChecks):
    provider_type = "remote::databricks"
    key_field = "databricks_api_token"
    key_name = "api_token"
    prefix = "/serving-endpoints"
    config: ClassVar[dict[str, Any]] = {"endpoints": [MODEL]}
    repetition_penalty = seed = None

    def url_of(self, front_url: str) -> str:
        """The workspace's, without the path."""
        return front_url.removesuffix(self.prefix)

    def front_settings(self) -> dict[str, Any]:
        return {"prefix": self.prefix, "routes": {LOOK: endpoint}, "keys": {KEY, OWN_KEY}}

    async def test_only_endpoints_that_are_ready(
        self, started: Callable[..., Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        async with started(endpoints=["being-made", MODEL, "gone"]) as running:
            running: Running
            [model] = await running.stack.models.list_models()
            assert (model.identifier, model.metadata) == (MODEL, {"task": "llm/v1/chat"})
            with pytest.raises(ObjectNotFoundError):
                await running.chat(model="being-made")
        assert "does not serve 'being-made', which its config names" in caplog.text
        assert "does not serve 'gone', which its config names" in caplog.text

    async def test_the_url_may_end_as_an_openai_client_takes_it(self, started: Callable[..., Any]) -> None:
        async with started() as running:
            url = str(running.stack.instances["inference"][0].plan.config.url).rstrip("/")
            async with started(url=f"{url}/serving-endpoints") as second:
                assert [model.identifier for model in await second.stack.models.list_models()] == [MODEL]


class TestDatabricksConformance(OpenAIDialectConformance):
    provider_type = "remote::databricks"
    differences = TestDatabricks
