"""The forms of Ollama's HTTP API: options, messages, lines of a stream, errors."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import anyio
from starlette.responses import JSONResponse, Response, StreamingResponse

_DEFAULTS: dict[str, Any] = {
    "temperature": 0.8,
    "top_k": 40,
    "top_p": 0.9,
    "min_p": 0.0,
    "repeat_penalty": 1.1,
    "repeat_last_n": 64,
    "num_predict": -1,
    "num_ctx": 4096,
    "seed": -1,
    "stop": [],
}
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


class RefusedError(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.answer = refusal(status, text)


def refusal(status: int, text: str, **headers: str) -> Response:
    """An error in Ollama's form. headers: with `_` for `-`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return JSONResponse({"error": text}, status, headers=named)


def ndjson(*lines: Any) -> Response:
    """A whole stream with these lines; a text stands as it is."""
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    return Response("".join(f"{text}\n" for text in texts), media_type="application/x-ndjson")


def streamed(lines: AsyncIterator[dict[str, Any]]) -> Response:
    async def blocks() -> AsyncIterator[str]:
        try:
            async for line in lines:
                yield json.dumps(line) + "\n"
        finally:
            with anyio.CancelScope(shield=True):
                await lines.aclose()  # type: ignore[attr-defined]

    return StreamingResponse(blocks(), media_type="application/x-ndjson")


async def all_of(lines: AsyncIterator[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line async for line in lines]


def merged_lines(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The lines of a stream as one answer, as without streaming."""
    whole = dict(lines[-1])
    logprobs = [entry for line in lines for entry in line.get("logprobs", ())]
    if logprobs:
        whole["logprobs"] = logprobs
    if "response" in whole:
        whole["response"] = "".join(line["response"] for line in lines)
        return whole
    calls = [call for line in lines for call in line["message"].get("tool_calls", ())]
    text = "".join(line["message"]["content"] for line in lines)
    whole["message"] = {"role": "assistant", "content": text, **({"tool_calls": calls} if calls else {})}
    return whole


def tagged(name: str) -> str:
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def time_text(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def keep_alive_of(body: Mapping[str, Any]) -> float:
    given = body.get("keep_alive")
    if given is None:
        return 300.0
    if isinstance(given, int | float):
        return float(given)
    parts = re.findall(r"(\d+(?:\.\d+)?)(ns|us|ms|s|m|h)", given)
    if "".join(number + unit for number, unit in parts) != given.lstrip("-"):
        raise RefusedError(400, f'time: invalid duration "{given}"')
    return sum(float(number) * _SECONDS[unit] for number, unit in parts) * (-1 if given.startswith("-") else 1)


def options_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a request over Ollama's defaults; unknown ones are passed over, wrong types are refused."""
    options = dict(_DEFAULTS)
    for name, value in (body.get("options") or {}).items():
        if name not in options or value is None:
            continue
        fits = isinstance(value, list if name == "stop" else int | float) and not isinstance(value, bool)
        if not fits:
            kind = "array" if name == "stop" else "float32" if isinstance(options[name], float) else "integer"
            raise RefusedError(500, f'option "{name}" must be of type {kind}')
        options[name] = value if isinstance(options[name], float | list) else int(value)
    return options


def engine_options(options: Mapping[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
    taken = {name: value for name, value in options.items() if name not in ("num_predict", "num_ctx", "seed")}
    if options["seed"] >= 0:
        taken["seed"] = options["seed"]
    schema = {"type": "object"} if body.get("format") == "json" else body.get("format")
    return {**taken, "n_predict": options["num_predict"], **({"json_schema": schema} if schema else {})}


def plain_message(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message as the template takes it. Raises for images that are not base64."""
    for image in message.get("images") or ():
        try:
            base64.b64decode(image, validate=True)
        except binascii.Error:
            raise RefusedError(400, "illegal base64 data at input byte 0") from None
    text = message.get("content") or ""
    for call in message.get("tool_calls") or ():
        text += f"<tool_call>{json.dumps(call['function'])}</tool_call>"
    return {"role": message["role"], "content": text}


def called_message(text: str) -> dict[str, Any]:
    try:
        call = json.loads(text)
    except ValueError:  # out of tokens: what is no call is text
        return {"role": "assistant", "content": text}
    return {"role": "assistant", "content": "", "tool_calls": [{"function": call}]}


def logprob_of(entry: Mapping[str, Any], most: int) -> dict[str, Any]:
    def one(token: Mapping[str, Any]) -> dict[str, Any]:
        return {name: token[name] for name in ("token", "logprob", "bytes")}

    tops = [one(token) for token in entry["top_logprobs"][:most]]
    return {**one(entry), **({"top_logprobs": tops} if most else {})}
