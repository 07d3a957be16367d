"""The provider with a real server behind it, at the paths and with the lists of Fireworks."""

from __future__ import annotations

import pytest
from backends.openai_checks import OpenAIDialectChecks
from backends.openai_conformance import OpenAIDialectConformance

pytestmark = pytest.mark.anyio


class TestFireworks(OpenAIDialectChecks):
    provider_type = "remote::fireworks"
    key_field = "fireworks_api_key"
    prefix = "/inference/v1"
    completion_schema = True


class TestFireworksConformance(OpenAIDialectConformance):
    provider_type = "remote::fireworks"
    differences = TestFireworks
