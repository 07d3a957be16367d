"""Entities and relations: from JSON documents, or read out of texts by a model; and how a query names entities."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llamastack.api.common import SystemMessage, UserMessage, text_of
from llamastack.api.inference import ChatCompletionResponse, Inference, JsonSchemaResponseFormat
from llamastack.provider import BackendError
from llamastack_memory_kit import StoredChunk

_WORD = re.compile(r"\w+")
_MOST_WORDS = 12
"""Of the name of an entity that a query can name."""
_TASK = (
    "Read the entities (people, places, organisations, things) and the relations between them out of the text. "
    "Answer with JSON: the entities with their names and types, and the relations from one entity to another. Use the "
    "names as the text has them. Leave out what the text does not say."
)


class Entity(BaseModel):
    """Something with a name."""

    model_config = ConfigDict(extra="ignore")

    name: str = Field(min_length=1)
    type: str | None = None


class Relation(BaseModel):
    """What one entity has to do with another; both are named."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    source: str = Field(alias="from", min_length=1)
    relation: str
    target: str = Field(alias="to", min_length=1)


class Graph(BaseModel):
    """A document of a graph bank, as JSON: `{"entities": [{"name": "Ada", "type": "person"}], "relations":
    [{"from": "Ada", "relation": "wrote to", "to": "Charles"}]}`. One of the two lists may be left out.
    """

    model_config = ConfigDict(extra="ignore")

    entities: list[Entity] = []
    relations: list[Relation] = []

    def mentions(self) -> list[str]:
        """The keys of all entities, each once."""
        names = [entity.name for entity in self.entities]
        for relation in self.relations:
            names += [relation.source, relation.target]
        return [key for key in dict.fromkeys(map(key_of, names)) if key]

    def links(self) -> list[tuple[str, str]]:
        """The keys of the two ends of each relation, each pair once."""
        pairs = dict.fromkeys((key_of(each.source), key_of(each.target)) for each in self.relations)
        return [pair for pair in pairs if all(pair)]


@dataclass(frozen=True, slots=True)
class GraphChunk(StoredChunk):
    """A chunk of a graph bank, with what it says."""

    graph: Graph | None = None


def key_of(name: str) -> str:
    """Names with one key are one entity: letter case, signs and blanks do not count."""
    return " ".join(_WORD.findall(name.casefold()))


def named_in(query: str) -> Iterator[str]:
    """Every key that an entity named in the query may have."""
    words = _WORD.findall(query.casefold())
    seen: set[str] = set()
    for first in range(len(words)):
        for end in range(first + 1, min(first + _MOST_WORDS, len(words)) + 1):
            key = " ".join(words[first:end])
            if key not in seen:
                seen.add(key)
                yield key


def read_graph(text: str) -> Graph:
    """The graph of a JSON document. Raises ValueError, saying what is wrong."""
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is no JSON: {error}") from None
    if not isinstance(raw, dict) or not {"entities", "relations"} & raw.keys():
        raise ValueError("is no JSON object with 'entities' or 'relations'")
    try:
        return Graph.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{place}: {first['msg']}") from None


async def extract_graph(inference: Inference, model: str, text: str) -> Graph:
    """The graph that a chat model reads out of a text. Raises the model's errors, and BackendError for other output."""
    answer = await inference.chat_completion(
        model=model,
        messages=[SystemMessage(content=_TASK), UserMessage(content=text)],
        response_format=JsonSchemaResponseFormat(json_schema=Graph.model_json_schema(by_alias=True)),
    )
    assert isinstance(answer, ChatCompletionResponse)  # no stream was asked for
    try:
        return Graph.model_validate_json(text_of(answer.completion_message.content))
    except ValidationError as error:
        raise BackendError(
            f"model '{model}' answered no entities and relations: {error.error_count()} errors"
        ) from None


def by_nearness(found: Sequence[tuple[int, int]], most: int) -> list[tuple[int, float]]:
    """Chunks with their scores: 1 for one that has an entity of the query, 1/2 for a neighbour's, and so on.

    found: ids of chunks, and relations between their entities and those of the query, the nearest first.
    """
    nearest: dict[int, int] = {}
    for id_, distance in found:
        nearest.setdefault(id_, distance)
    return [(id_, 1 / (1 + distance)) for id_, distance in nearest.items()][:most]
