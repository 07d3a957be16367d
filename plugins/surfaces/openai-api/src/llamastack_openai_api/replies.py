"""Replies and chunks in OpenAI's form, and native embeddings, verdicts and models -> what `/v1` sends."""

from __future__ import annotations

import base64
import random
import time
import uuid
from array import array
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from sys import byteorder
from typing import Any

from anyio.lowlevel import checkpoint

from llamastack.api.inference import EmbeddingsResponse
from llamastack.api.models import Model
from llamastack.api.safety import RunShieldResponse, ViolationLevel
from llamastack.http import sse
from llamastack_adapters.sse_blocks import DONE_EVENT
from llamastack_server import json_of

Reply = Mapping[str, Any]
Usage = dict[str, int]
_ENDS_AT_ONCE = 100


def _event(body: dict[str, Any]) -> bytes:
    return sse.encode(json_of(body))


def _head(kind: str, model: str) -> dict[str, Any]:
    prefix = "cmpl" if kind == "text_completion" else "chatcmpl"
    # perf: llamastack-v1-ollama. Not a UUID: each is a call of the system.
    return {
        "id": f"{prefix}-{random.getrandbits(128):032x}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
    }


def _of_one(usages: Iterable[Usage | None]) -> Usage | None:
    """The usage of several answers to one prompt, which counts once; None if the usage of one is unknown."""
    known: list[Usage] = []
    for usage in usages:
        if usage is None:
            return None
        known.append(usage)
    prompt = known[0]["prompt_tokens"]
    completion = sum(usage["completion_tokens"] for usage in known)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _usage(usages: Sequence[Usage | None], prompts: int) -> Usage | None:
    """The usage of all answers together; `usages` is in the order of the prompts."""
    each = len(usages) // prompts
    total: Usage = {}
    for start in range(0, len(usages), each):
        usage = _of_one(usages[start : start + each])
        if usage is None:
            return None
        for name, count in usage.items():
            total[name] = total.get(name, 0) + count
    return total or None


def whole(kind: str, replies: Sequence[Reply], model: str, prompts: int = 1) -> bytes:
    """A `chat.completion` or `text_completion` with a choice for each reply, in the order of the prompts."""
    choices = [{"index": index, **reply["choices"][0]} for index, reply in enumerate(replies)]
    body = {**_head(kind, model), "choices": choices}
    usage = _usage([reply.get("usage") for reply in replies], prompts)
    return json_of(body if usage is None else {**body, "usage": usage})


@dataclass(slots=True)
class _Choice:
    """The state of one stream."""

    index: int
    chunks: AsyncIterator[Reply]
    usage: Usage | None = None

    async def next_chunk(self) -> Reply:
        chunk = await anext(self.chunks)
        self.usage = chunk.get("usage") or self.usage
        return chunk


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """The options of a streamed request.

    kind: `chat.completion.chunk` or `text_completion`. model: its name in the request. usage: whether the client wants
    usage. prompts: how many there are; the choices are divided evenly among them.
    """

    kind: str
    model: str
    usage: bool = False
    prompts: int = 1


async def events(streams: Sequence[AsyncIterator[Reply]], options: StreamOptions) -> AsyncIterator[bytes]:
    """One choice for each stream, then `[DONE]`.

    The chunks of the streams alternate; the backends work on all of them at once.
    """
    head = _head(options.kind, options.model)
    choices = [_Choice(index, chunks) for index, chunks in enumerate(streams)]
    extra: dict[str, Any] = {"usage": None} if options.usage else {}
    going = choices
    while going:
        asked, going = going, []
        for place, choice in enumerate(asked):
            try:
                chunk = await choice.next_chunk()
            except StopAsyncIteration:
                if place % _ENDS_AT_ONCE == 0:
                    await checkpoint()  # thousands of streams may end one after the other
                continue
            going.append(choice)
            for made in chunk["choices"]:
                yield _event({**head, "choices": [{"index": choice.index, **made}], **extra})
    usage = _usage([choice.usage for choice in choices], options.prompts) if options.usage else None
    if usage is not None:
        yield _event({**head, "choices": [], "usage": usage})
    yield DONE_EVENT


# ---- embeddings, moderations, models ---------------------------------------------------------------------------------


def embeddings(reply: EmbeddingsResponse, model: str, encoding: str) -> bytes:
    """A list of `embedding`; as numbers, or as base64 of little-endian 32-bit floats."""
    data = [
        {"object": "embedding", "index": index, "embedding": _base64(vector) if encoding == "base64" else vector}
        for index, vector in enumerate(reply.embeddings)
    ]
    tokens = None if reply.usage is None else reply.usage.prompt_tokens
    usage = None if tokens is None else {"prompt_tokens": tokens, "total_tokens": tokens}
    body = {"object": "list", "data": data, "model": model}
    return json_of(body if usage is None else {**body, "usage": usage})


def _base64(vector: Sequence[float]) -> str:
    floats = array("f", vector)
    if byteorder == "big":
        floats.byteswap()
    return base64.b64encode(floats.tobytes()).decode()


def moderation(verdicts: Sequence[RunShieldResponse], shield: str) -> bytes:
    """The verdict of a shield on each input.

    The categories are the shield's own: `violation_type` of a violation's metadata if it has one, else the name of the
    shield. Shields have no scores, so a score is 1 or 0. The field `violation` has the violation with its message for
    the user and its metadata.
    """
    results = []
    for verdict in verdicts:
        violation = verdict.violation
        flagged = violation is not None and violation.violation_level is ViolationLevel.error
        category = shield if violation is None else str(violation.metadata.get("violation_type") or shield)
        result: dict[str, Any] = {
            "flagged": flagged,
            "categories": {category: flagged},
            "category_scores": {category: float(flagged)},
            "category_applied_input_types": {category: ["text"]},
        }
        if violation is not None:
            result["violation"] = violation.to_wire()
        results.append(result)
    return json_of({"id": f"modr-{uuid.uuid4().hex}", "model": shield, "results": results})


def model_entry(model: Model, name: str) -> dict[str, Any]:
    """A `model`, by the name `name`. `created` is 0, because the date is unknown.

    The fields after `owned_by` are those of newer llama-stack releases: `custom_metadata` as of 0.3, the others of 0.2.
    """
    kind = "embedding" if model.only_embeds else "llm"
    own_name = model.provider_resource_id or model.identifier
    about = {"model_type": kind, "provider_id": model.provider_id, "provider_resource_id": own_name}
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": model.provider_id,
        "custom_metadata": {**model.metadata, **about},
        "identifier": name,
        "type": "model",
        "metadata": model.metadata,
        **about,
    }
