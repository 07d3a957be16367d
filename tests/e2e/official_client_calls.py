"""Every call of the official client `llama-stack-client==0.0.41`, run inside a venv that has it.

Usage: python official_client_calls.py URL. Prints one line per call; fails at the first that goes wrong.
"""

from __future__ import annotations

import sys
import urllib.parse
from datetime import UTC, datetime

import llama_stack_client
from llama_stack_client import LlamaStackClient

URL = sys.argv[1]
CHAT_MODEL = "SmolLM2-135M-Instruct"
EMBEDDING_MODEL = "all-MiniLM-L6-v2"
HELLO = [{"role": "user", "content": "What is the capital of France?"}]
SHORT = {"strategy": "greedy", "max_tokens": 16}

client = LlamaStackClient(base_url=URL)


def check(call: str, condition: object, saw: object = "") -> None:
    print(f"{'ok  ' if condition else 'FAIL'} {call} {str(saw)[:200]}")
    if not condition:
        sys.exit(1)


def refused(call: str, status: int, function: object) -> None:
    try:
        function()
    except llama_stack_client.APIStatusError as error:
        check(call, error.status_code == status, error.message)
    else:
        check(call, False, "was not refused")


# inspect
check("inspect.health", client.inspect.health().status == "OK")
providers = client.providers.list()
check("providers.list", "inference" in providers, providers)
routes = client.routes.list()
check("routes.list", any(r.route == "/inference/chat_completion" for r in routes["inference"]))

# models
models = client.models.list()
models = [models] if not isinstance(models, list) else models
names = [m["identifier"] if isinstance(m, dict) else m.identifier for m in models]
check("models.list", {CHAT_MODEL, EMBEDDING_MODEL} <= set(names), names)
model = client.models.retrieve(identifier=CHAT_MODEL)
check("models.retrieve", model.identifier == CHAT_MODEL and model.provider_id == "llama-cpp", model)
check("models.retrieve of none", client.models.retrieve(identifier="nope") is None)
definition = {"identifier": CHAT_MODEL, "llama_model": "SmolLM2", "provider_id": "llama-cpp", "metadata": {}}
check("models.register", client.models.register(model=definition) is None)
check("models.register again", client.models.register(model=definition) is None)
refused(
    "models.register of what is not served",
    400,
    lambda: client.models.register(model={**definition, "identifier": "x"}),
)

# shields
shield = {"identifier": "spit", "type": "words", "params": {"words": ["spit"]}, "provider_id": "sample"}
check("shields.register", client.shields.register(shield=shield) is None)
check("shields.list", "spit" in str(client.shields.list()))
check("shields.retrieve", client.shields.retrieve(shield_type="spit").identifier == "spit")
check("shields.retrieve of none", client.shields.retrieve(shield_type="nope") is None)

# safety
run = client.safety.run_shield(shield_type="spit", messages=[{"role": "user", "content": "Llamas spit"}], params={})
check("safety.run_shield", run.violation is not None and run.violation.violation_level == "error", run)
run = client.safety.run_shield(shield_type="spit", messages=HELLO, params={})
check("safety.run_shield that passes", run.violation is None, run)
refused(
    "safety.run_shield of none", 404, lambda: client.safety.run_shield(shield_type="nope", messages=HELLO, params={})
)

# inference
reply = client.inference.chat_completion(model=CHAT_MODEL, messages=HELLO, sampling_params=SHORT, stream=False)
check("inference.chat_completion", "Paris" in reply.completion_message.content, reply.completion_message)
events = [
    chunk.event
    for chunk in client.inference.chat_completion(model=CHAT_MODEL, messages=HELLO, sampling_params=SHORT, stream=True)
]
check(
    "inference.chat_completion(stream)",
    [events[0].event_type, events[-1].event_type] == ["start", "complete"]
    and {e.event_type for e in events[1:-1]} == {"progress"}
    and "".join(e.delta for e in events) == reply.completion_message.content
    and events[-1].stop_reason in ("end_of_turn", "out_of_tokens"),
    "".join(e.delta for e in events),
)
everything = {
    "tool_choice": "auto",
    "tool_prompt_format": "json",
    "tools": [
        {
            "tool_name": "get_weather",
            "description": "The weather",
            "parameters": {"city": {"param_type": "str", "description": "City", "required": True}},
        }
    ],
}
tools = client.inference.chat_completion(
    model=CHAT_MODEL, messages=HELLO, sampling_params=SHORT, stream=False, **everything
)
check("inference.chat_completion(tools)", tools.completion_message.role == "assistant", tools)
probable = client.inference.chat_completion(
    model=CHAT_MODEL, messages=HELLO, sampling_params=SHORT, stream=False, logprobs={"top_k": 1}
)
check("inference.chat_completion(logprobs)", probable.logprobs[0].logprobs_by_token, probable.logprobs[0])
refused(
    "logprobs beside tools, which llama.cpp cannot",
    501,
    lambda: client.inference.chat_completion(
        model=CHAT_MODEL, messages=HELLO, stream=False, logprobs={"top_k": 1}, **everything
    ),
)
several = [{"role": "user", "content": ["What is the capital", "of France?"]}]
listed = client.inference.chat_completion(model=CHAT_MODEL, messages=several, sampling_params=SHORT, stream=False)
check("inference.chat_completion(content as a list)", listed.completion_message.content, listed.completion_message)
text = client.inference.completion(
    model=CHAT_MODEL, content="The capital of France is", sampling_params={**SHORT, "temperature": 0}, stream=False
)
check("inference.completion", "Paris" in text.completion_message.content, text)
vectors = client.inference.embeddings.create(model=EMBEDDING_MODEL, contents=["a llama", "an alpaca"])
check("inference.embeddings.create", [len(v) for v in vectors.embeddings] == [384, 384])
refused("empty messages", 400, lambda: client.inference.chat_completion(model=CHAT_MODEL, messages=[], stream=False))
refused("unknown model", 404, lambda: client.inference.chat_completion(model="nope", messages=HELLO, stream=False))
refused(
    "a prompt beyond the context",
    400,
    lambda: client.inference.chat_completion(
        model=CHAT_MODEL, messages=[{"role": "user", "content": "word " * 20000}], stream=False
    ),
)

# memory banks and memory
bank = {
    "type": "vector",
    "identifier": "facts",
    "embedding_model": EMBEDDING_MODEL,
    "chunk_size_in_tokens": 64,
    "overlap_size_in_tokens": 8,
    "provider_id": "qdrant",
}
check("memory_banks.register", client.memory_banks.register(memory_bank=bank) is None)
untyped = {name: value for name, value in bank.items() if name != "type"} | {"identifier": "untyped"}
check("memory_banks.register without type", client.memory_banks.register(memory_bank=untyped) is None)
check("memory_banks.list", "facts" in str(client.memory_banks.list()))
found = client.memory_banks.retrieve(identifier="untyped")
check("memory_banks.retrieve", found.type == "vector" and found.embedding_model == EMBEDDING_MODEL, found)
check("memory_banks.retrieve of none", client.memory_banks.retrieve(identifier="nope") is None)
refused(
    "memory_banks.register of an unknown embedding model",
    404,
    lambda: client.memory_banks.register(memory_bank={**bank, "identifier": "bad", "embedding_model": "nope"}),
)
documents = [
    {
        "document_id": "llamas",
        "content": "Llamas spit when they are annoyed.",
        "mime_type": "text/plain",
        "metadata": {"k": 1},
    },
    {"document_id": "paris", "content": "Paris is the capital of France.", "mime_type": "text/plain", "metadata": {}},
]
check("memory.insert", client.memory.insert(bank_id="facts", documents=documents) is None)
check("memory.insert(ttl)", client.memory.insert(bank_id="facts", documents=documents, ttl_seconds=3600) is None)
check("memory.insert of nothing", client.memory.insert(bank_id="facts", documents=[]) is None)
web_page = "<html><head><title>t</title></head><body><p>Zebras wear stripes.</p></body></html>"
for name, content, kind in (
    ("uri", {"uri": "data:application/octet-stream,Zebras%20wear%20stripes."}, "text/markdown"),
    ("html", "data:text/html," + urllib.parse.quote(web_page), None),
    ("inline", web_page, "text/html"),
):
    document = {"document_id": name, "content": content, "mime_type": kind, "metadata": {}}
    check(f"memory.insert({name})", client.memory.insert(bank_id="facts", documents=[document]) is None)
answer = client.memory.query(bank_id="facts", query="Which animal wears stripes?", params={"max_chunks": 3})
check("memory.query of pages", {c.content for c in answer.chunks} == {"Zebras wear stripes."}, answer)
answer = client.memory.query(bank_id="facts", query="What do angry animals do?", params={"max_chunks": 1})
check("memory.query", answer.chunks[0].document_id == "llamas" and len(answer.scores) == 1, answer)
for wrong in (0, -1, "three", 10**9):
    refused(
        f"memory.query(max_chunks={wrong!r})",
        400,
        lambda wrong=wrong: client.memory.query(bank_id="facts", query="q", params={"max_chunks": wrong}),
    )
refused("memory.query of none", 404, lambda: client.memory.query(bank_id="nope", query="q"))
refused(
    "memory.insert of an unreachable URL",
    400,
    lambda: client.memory.insert(
        bank_id="facts", documents=[{"document_id": "u", "content": "http://127.0.0.1:9/none", "metadata": {}}]
    ),
)

# agents
agent_config = {
    "model": CHAT_MODEL,
    "instructions": "Answer briefly.",
    "enable_session_persistence": False,
    "max_infer_iters": 2,
    "tool_choice": "auto",
    "tool_prompt_format": "json",
    "sampling_params": SHORT,
    "input_shields": [],
    "output_shields": [],
}
agent_id = client.agents.create(agent_config=agent_config).agent_id
check("agents.create", agent_id)
session_id = client.agents.session.create(agent_id=agent_id, session_name="n").session_id
check("agents.session.create", session_id)
turns = client.agents.turn.create(agent_id=agent_id, session_id=session_id, messages=HELLO, stream=True)
payloads = [chunk.event.payload for chunk in turns]
kinds = [payload.event_type for payload in payloads]
check("agents.turn.create", [kinds[0], kinds[-1]] == ["turn_start", "turn_complete"], kinds)
turn = payloads[-1].turn
check("agents.turn.create: the whole turn", turn.output_message.content and turn.steps, turn.output_message)
got = client.agents.turn.retrieve(agent_id=agent_id, turn_id=turn.turn_id)
check("agents.turn.retrieve", got.turn_id == turn.turn_id)
step = client.agents.steps.retrieve(agent_id=agent_id, turn_id=turn.turn_id, step_id=turn.steps[0].step_id)
check("agents.steps.retrieve", step.step.step_type == "inference", step)
session = client.agents.session.retrieve(agent_id=agent_id, session_id=session_id, turn_ids=[turn.turn_id])
check("agents.session.retrieve", [t.turn_id for t in session.turns] == [turn.turn_id])
session = client.agents.session.retrieve(agent_id=agent_id, session_id=session_id)
check("agents.session.retrieve without turn_ids", session.session_name == "n")
check("agents.session.delete", client.agents.session.delete(agent_id=agent_id, session_id=session_id) is None)
check("agents.delete", client.agents.delete(agent_id=agent_id) is None)
refused("agents.delete again", 404, lambda: client.agents.delete(agent_id=agent_id))

# telemetry
now = datetime.now(UTC).isoformat()
base = {"trace_id": "t", "span_id": "s", "timestamp": now}
for event in (
    {**base, "type": "unstructured_log", "message": "x", "severity": "info", "attributes": {}},
    {**base, "type": "metric", "metric": "m", "value": 1.5, "unit": "s"},
    {**base, "type": "structured_log", "payload": {"type": "span_start", "name": "n"}},
    {**base, "type": "structured_log", "payload": {"type": "span_end", "status": "ok"}},
):
    check(f"telemetry.log_event({event['type']})", client.telemetry.log_event(event=event) is None)
check("telemetry.get_trace", client.telemetry.get_trace(trace_id="t").root_span_id == "s")
refused("telemetry.get_trace of none", 404, lambda: client.telemetry.get_trace(trace_id="nope"))

# provider data
check("provider data", client.models.list(x_llama_stack_provider_data='{"k": "v"}'))
embedded = client.inference.embeddings.create(model=EMBEDDING_MODEL, contents=["a"], x_llama_stack_provider_data="{")
check("provider data that no provider needs", len(embedded.embeddings) == 1)
print("all calls done")
