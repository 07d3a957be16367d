"""Calls of the official client `llama-stack-client==0.2.12`, run inside a venv that has it.

Usage: python newer_client_calls.py URL. Fails at the first call that goes wrong.
"""

from __future__ import annotations

import sys

import llama_stack_client
from llama_stack_client import LlamaStackClient

client = LlamaStackClient(base_url=sys.argv[1])

assert client.inspect.health().status == "OK"
assert client.inspect.version().version
providers = client.providers.list()
assert {provider.api for provider in providers} == {"inference", "safety"}, providers
provider = client.providers.retrieve("words")
assert (provider.api, provider.provider_type, provider.health["status"]) == ("safety", "remote::sample", "OK")
assert any(route.route == "/inference/chat_completion" for route in client.routes.list())

models = client.models.list()
assert [(m.identifier, m.provider_id, m.api_model_type) for m in models] == [("sample-echo", "echo", "llm")], models
assert client.models.retrieve("sample-echo").identifier == "sample-echo"
try:
    client.models.retrieve("nothing")
except llama_stack_client.NotFoundError:
    print("a model that is not there is refused")
else:
    raise AssertionError("a model that is not there was found")

[shield] = client.shields.list()
assert (shield.identifier, shield.provider_id, shield.type) == ("sample-words", "words", "shield")
assert client.shields.retrieve("sample-words").identifier == "sample-words"
for text, violates in (("Hello", False), ("This is forbidden", True)):
    verdict = client.safety.run_shield(
        shield_id="sample-words", messages=[{"role": "user", "content": text}], params={}
    )
    assert (verdict.violation is not None) == violates, verdict
    if verdict.violation is not None:
        assert verdict.violation.violation_level == "error"
print("all calls done")
