"""The config of the qdrant provider."""

from __future__ import annotations

from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from llamastack.http.answer_limits import MOST_RESPONSE_BYTES
from llamastack_adapters.remote_inference import CaFile
from llamastack_memory_kit import EmbeddingSettings, ExpandedPath


class QdrantConfig(EmbeddingSettings):
    """Exactly one of `path`, `location` and `url` says where the vectors are."""

    path: Annotated[
        ExpandedPath | None,
        Field(
            description="Folder of banks on Qdrant's own engine in this process; one process opens it at a time.",
            json_schema_extra={"x-writes": "folder"},
        ),
    ] = None
    location: Annotated[
        Literal[":memory:"] | None, Field(description="Banks in memory, for tests: slow, and lost at the end.")
    ] = None
    url: Annotated[
        str | None,
        Field(description="Qdrant server (1.16 or later), http(s)://host[:port]; the port is 6333 if left out."),
    ] = None
    api_key: Annotated[SecretStr | None, Field(description="Key for the server, only with `url`.")] = None
    timeout: Annotated[int, Field(ge=1, description="Seconds that one request to the server may take.")] = 30
    max_response_bytes: Annotated[
        int, Field(ge=1024, description="Most bytes of a reply of the server, decompressed.")
    ] = MOST_RESPONSE_BYTES
    ca_file: Annotated[
        CaFile | None,
        Field(
            description="File with certificates, in PEM, of authorities to trust in addition to the usual ones: your "
            "own, or a self-signed certificate of the server."
        ),
    ] = None
    collection_prefix: Annotated[
        str,
        Field(
            pattern=r"^[a-z0-9_-]{1,64}$",
            description="Prefix of the names of the provider's collections. Stacks that share a server and a prefix "
            "share their banks.",
        ),
    ] = "llamastack_"

    @field_validator("url")
    @classmethod
    def _is_plain_address(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be http(s)://host[:port]")
        if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
            raise ValueError("must not contain credentials, a query or a fragment; the key belongs in api_key")
        return url

    @model_validator(mode="after")
    def _is_in_one_place(self) -> Self:
        if sum(place is not None for place in (self.path, self.location, self.url)) != 1:
            raise ValueError("exactly one of path, location and url must be set")
        if self.api_key is not None and self.url is None:
            raise ValueError("api_key needs url")
        return self
