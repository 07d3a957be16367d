from __future__ import annotations

import pytest

from llamastack_provider_opentelemetry import environment


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (environment.ENDPOINT, environment.HEADERS, environment.SERVICE_NAME, environment.RESOURCE_ATTRIBUTES):
        monkeypatch.delenv(name, raising=False)
