"""How the stand-in for text-generation-inference generates: its checks, with its words, over llama.cpp's server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import anyio
import httpx
from starlette.requests import Request

from backends.llama_server import CONTEXT_LENGTH

_EOS, _EOS_TEXT = 2, "<|im_end|>"
_STATUSES = {"generation": 424, "overloaded": 429, "validation": 422, "tool_error": 422, "incomplete_generation": 500}


class InferError(Exception):
    """error_type: the kind of fault, from which the HTTP status follows."""

    def __init__(self, error_type: str, message: str) -> None:
        super().__init__(message)
        self.error_type = error_type
        self.status = _STATUSES[error_type]

    @property
    def body(self) -> dict[str, Any]:
        return {"error": str(self), "error_type": self.error_type}

    @property
    def openai_body(self) -> dict[str, Any]:
        return {"error": {"message": str(self), "http_status_code": self.status}}


class Rejected(Exception):
    """A body that is JSON but not of the type that the route takes."""


def invalid(message: str) -> InferError:
    return InferError("validation", f"Input validation error: {message}")


@dataclass
class Generator:
    """engine: URL of llama.cpp's server. disconnects: how many generations were given up."""

    engine: str
    max_input_tokens: int = 1024
    max_total_tokens: int = CONTEXT_LENGTH
    disconnects: int = 0

    async def whole(self, request: Request, inputs: str, p: Mapping[str, Any]) -> dict[str, Any]:
        pieces: list[dict[str, Any]] = []

        async def generate() -> None:
            async with aclosing(self.pieces(request, inputs, p)) as given:
                pieces.extend([piece async for piece in given])

        await self._while_connected(request, generate)
        text = (inputs if p.get("return_full_text") else "") + _text_of(pieces)
        response: dict[str, Any] = {"generated_text": text}
        if p.get("details"):
            details = pieces[-1]["details"]
            response["details"] = {name: details[name] for name in ("finish_reason", "generated_tokens", "seed")}
            response["details"] |= {"prefill": [], "tokens": [piece["token"] for piece in pieces]}
            if p.get("top_n_tokens"):
                response["details"]["top_tokens"] = [piece["top_tokens"] for piece in pieces]
        return response

    async def _while_connected(self, request: Request, work: Any) -> None:
        async def watch(scope: anyio.CancelScope) -> None:
            while not await request.is_disconnected():
                await anyio.sleep(0.01)
            self.disconnects += 1
            scope.cancel()

        failure: InferError | Rejected | None = None
        finished = False
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch, tasks.cancel_scope)
            try:
                await work()
                finished = True
            except (InferError, Rejected) as error:
                failure = error
            tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure
        if not finished:
            raise InferError("incomplete_generation", "Incomplete generation")

    async def _text_events(self, request: Request, inputs: str, p: Mapping[str, Any]) -> AsyncIterator[str]:
        try:
            async with aclosing(self.pieces(request, inputs, p)) as pieces:
                async for piece in pieces:
                    if piece["details"] and not p.get("details"):
                        piece["details"] = None
                    if not piece["top_tokens"]:
                        del piece["top_tokens"]
                    yield f"data:{json.dumps(piece, ensure_ascii=False)}\n\n"
        except InferError as error:
            yield f"data:{json.dumps(error.body)}\n\n"

    async def pieces(self, request: Request, inputs: str, p: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """A `StreamResponse` for each token; the last has the text and the details."""
        length, body = await self._validated(request, inputs, p)
        http: httpx.AsyncClient = request.app.state.http
        stops: list[str] = p.get("stop") or []
        before: list[dict[str, Any]] = []

        def ended(piece: dict[str, Any], reason: str) -> dict[str, Any]:
            text = (inputs if p.get("return_full_text") else "") + _text_of([*before, piece])
            details = {"finish_reason": reason, "generated_tokens": len(before) + 1, "input_length": length}
            return {**piece, "generated_text": text, "details": {**details, "seed": p.get("seed")}}

        last: dict[str, Any] | None = None
        complete = False
        try:
            async with http.stream("POST", f"{self.engine}/completion", json=body) as response:
                if not response.is_success:
                    body = (await response.aread()).decode()
                    raise InferError("generation", f"Request failed during generation: {body}")
                async for line in response.aiter_lines():
                    if not line.startswith("data: "):
                        continue
                    data = json.loads(line.removeprefix("data: "))
                    if data["stop"] or "error" in data:
                        break
                    if last is not None:
                        before.append(last)
                        yield last
                    last = _piece(data, len(before) + 1, p.get("top_n_tokens") or 0)
                    if any(_text_of([*before, last]).endswith(stop) for stop in stops):
                        complete = True
                        yield ended(last, "stop_sequence")
                        return
                    if "json_schema" in body and _is_whole(_text_of([*before, last])):
                        # Its grammars leave no room for anything behind, as the engine's do.
                        complete = True
                        before.append(last)
                        yield last
                        yield ended(_end_token(len(before) + 1), "eos_token")
                        return
            complete = True
            if last is None:
                raise InferError("incomplete_generation", "Incomplete generation")
            yield ended(last, "eos_token" if last["token"]["special"] else "length")
        finally:
            self.disconnects += not complete

    async def _validated(self, request: Request, inputs: str, p: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        """Tokens of the input, and the body for the engine."""
        temperature, top_p, top_k = p.get("temperature"), p.get("top_p"), p.get("top_k")
        penalty, most, top_n = p.get("repetition_penalty"), p.get("max_new_tokens"), p.get("top_n_tokens")
        for name in ("temperature", "top_p", "repetition_penalty", "frequency_penalty"):
            if not isinstance(p.get(name), float | int | None):
                raise Rejected(f"parameters.{name}: invalid type, expected f32")
        if temperature is not None and temperature <= 0:
            raise invalid("`temperature` must be strictly positive")
        if penalty is not None and penalty <= 0:
            raise invalid("`repetition_penalty` must be strictly positive")
        if top_p is not None and not 0 < top_p < 1:
            raise invalid("`top_p` must be > 0.0 and < 1.0")
        if top_k is not None and top_k <= 0:
            raise invalid("`top_k` must be strictly positive")
        if most == 0:
            raise invalid("`max_new_tokens` must be strictly positive")
        if len(p.get("stop") or ()) > 4:
            raise invalid(f"`stop` supports up to 4 stop sequences. Given: {len(p['stop'])}")
        if top_n is not None and top_n > 5:
            raise invalid(f"`top_n_tokens` must be >= 0 and <= 5. Given: {top_n}")
        if not inputs:
            raise invalid("`inputs` cannot be empty")
        length = len(await self.tokens_of(request, inputs))
        most = max(1, self.max_total_tokens - length) if most is None else most
        if length + most > self.max_total_tokens:
            given = f"{length} `inputs` tokens and {most} `max_new_tokens`"
            raise invalid(f"`inputs` tokens + `max_new_tokens` must be <= {self.max_total_tokens}. Given: {given}")
        if length > self.max_input_tokens:
            raise invalid(f"`inputs` must have less than {self.max_input_tokens} tokens. Given: {length}")
        body = {"prompt": inputs, "stream": True, "n_predict": most, "n_probs": max(1, top_n or 0), "min_p": 0}
        body |= {"temperature": (temperature or 1.0) if p.get("do_sample") else 0, "top_k": top_k or 0}
        body |= {"top_p": top_p or 1.0, "repeat_penalty": penalty or 1.0, "repeat_last_n": CONTEXT_LENGTH}
        if p.get("seed") is not None:
            body["seed"] = p["seed"]
        if (grammar := p.get("grammar")) is not None:
            body["json_schema"] = _schema(grammar)
        return length, body

    async def tokens_of(self, request: Request, text: str) -> list[dict[str, Any]]:
        body = {"content": text, "with_pieces": True}
        answer = await request.app.state.http.post(f"{self.engine}/tokenize", json=body)
        tokens: list[dict[str, Any]] = answer.json()["tokens"]
        return tokens


def _piece(data: Mapping[str, Any], index: int, top_n: int) -> dict[str, Any]:
    place = data["completion_probabilities"][0]
    tops = place["top_logprobs"][:top_n]
    return {
        "index": index,
        "token": _token(place, data["content"]),
        "top_tokens": [_token(top, top["token"]) for top in tops],
        "generated_text": None,
        "details": None,
    }


def _token(entry: Mapping[str, Any], text: str) -> dict[str, Any]:
    special = entry["id"] == _EOS
    return {
        "id": entry["id"],
        "text": _EOS_TEXT if special else text,
        "logprob": entry["logprob"],
        "special": special,
    }


def _end_token(index: int) -> dict[str, Any]:
    token = {"id": _EOS, "text": _EOS_TEXT, "logprob": 0.0, "special": True}
    return {"index": index, "token": token, "top_tokens": [], "generated_text": None, "details": None}


def _is_whole(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _text_of(pieces: list[dict[str, Any]]) -> str:
    return "".join(piece["token"]["text"] for piece in pieces if not piece["token"]["special"])


def _schema(grammar: Any) -> Any:
    """The JSON schema of a grammar, which may be written as text."""
    kind = grammar.get("type") if isinstance(grammar, dict) else None
    if kind not in ("json", "json_object"):
        raise Rejected(f"grammar: unknown variant `{kind}`, expected one of `json`, `regex`")
    value = grammar.get("value")
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise invalid(f"grammar is not valid: {error}") from None
    if not isinstance(value, dict):
        raise invalid("`grammar` must be an object")
    if "properties" not in value:
        raise invalid("grammar is not valid: Grammar must have a 'properties' field")
    return _closed(value)


def _closed(schema: Any) -> Any:
    """The schema without room for properties that it does not name, of which its grammars know nothing."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {name: _closed(value) for name, value in schema.items()}
    return {**inner, "additionalProperties": False} if isinstance(inner.get("properties"), dict) else inner
