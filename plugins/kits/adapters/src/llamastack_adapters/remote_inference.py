"""What all adapters of inference services share: their config, and how they list their models."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, HttpUrl, ValidationError

from llamastack.api.base import Identifier
from llamastack.api.inference import Inference
from llamastack.api.models import Model
from llamastack.http.answer_limits import MOST_RESPONSE_BYTES, AnswerLimits
from llamastack.http.client import check_authorities
from llamastack.http.sse import MOST_EVENT_BYTES
from llamastack.provider.deps import Deps
from llamastack.provider.errors import (
    AuthenticationError,
    BackendError,
    InvalidRequestError,
    LlamaStackError,
    NotFoundError,
    NotSupportedError,
    PermissionDeniedError,
    UnsupportedModelError,
)
from llamastack.provider.protocols import ModelsProtocolPrivate
from llamastack_adapters.rate_limit_retries import Retries

_LOGGER = logging.getLogger("llamastack.provider")
_NO_LIST = (BackendError, NotFoundError, NotSupportedError, PermissionDeniedError, InvalidRequestError)
_MOST_NAMES = 5


def _without_credentials(url: HttpUrl) -> HttpUrl:
    if url.username or url.password:
        raise ValueError("must not contain credentials")
    return url


BackendUrl = Annotated[HttpUrl, AfterValidator(_without_credentials)]
"""An http(s) URL without user and password, because URLs are shown in logs and errors."""


def _check_ca_file(path: Path) -> Path:
    path = path.expanduser().absolute()
    check_authorities(path)
    return path


CaFile = Annotated[Path, AfterValidator(_check_ca_file)]
"""A file of certificates that can be read."""


class AnswersConfig(BaseModel):
    """The fields of every config with a backend over a network: limits for its answers, and certificates."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    max_response_bytes: int = Field(
        default=MOST_RESPONSE_BYTES, ge=1024, description="Most bytes of a whole reply of the backend, decompressed"
    )
    max_event_bytes: int = Field(
        default=MOST_EVENT_BYTES, ge=1024, description="Most bytes of one event of a stream of the backend"
    )
    ca_file: CaFile | None = Field(
        default=None,
        description=(
            "PEM file of certificates to trust in addition to the usual authorities: your own authority's, or the "
            "backend's self-signed certificate"
        ),
    )

    @property
    def answer_limits(self) -> AnswerLimits:
        """How long answers may be."""
        return AnswerLimits(self.max_response_bytes, self.max_event_bytes)


class HttpConfig(AnswersConfig):
    """What `HttpBackend` needs: the fields of the config of a provider, of any API, whose backend speaks HTTP."""

    timeout_s: float = Field(
        default=60.0, gt=0, allow_inf_nan=False, description="Seconds that the backend may be silent during a call"
    )
    connect_timeout_s: float = Field(
        default=10.0, gt=0, allow_inf_nan=False, description="Seconds that connecting to the backend may take"
    )
    max_retries: int = Field(default=2, ge=0, le=10, description="Retries of a call that meets a rate limit (429)")
    max_retry_wait_s: float = Field(
        default=10.0,
        ge=0,
        allow_inf_nan=False,
        description="Most seconds to wait before a retry; if the backend asks for more, the client gets the error",
    )

    @property
    def retries(self) -> Retries:
        """How often a call that met a rate limit is retried, and with which waits."""
        return Retries(self.max_retries, self.max_retry_wait_s)


class RemoteConfig(HttpConfig):
    """The fields of the config of every remote inference provider."""

    timeout_s: float = Field(
        default=600.0, gt=0, allow_inf_nan=False, description="Seconds that the backend may be silent during a call"
    )
    models: dict[Identifier, Identifier] = Field(
        default_factory=dict,
        description="Further names for models that the backend serves: "
        "public name -> the backend's name. Such a name can move between backends.",
    )
    trust_models: bool = Field(
        default=False,
        description="Serve the names in `models` although the backend does not list them, or lists nothing at all",
    )

    @property
    def configured_names(self) -> list[str]:
        """The names in this config; they are served when the backend works."""
        return list(self.models)


class RemoteInference(Inference, ModelsProtocolPrivate):
    """Base of adapters: names, listing and registering. A subclass implements `served` and the calls."""

    def __init__(self, config: RemoteConfig, deps: Deps) -> None:
        self.deps = deps
        """What the factory received."""
        self.provider_id: str = deps.provider_id
        """The id that this instance has in the run config."""
        self.wanted: set[str] = set(config.models.values())
        """The backend's names in the config; a warning is logged if the backend does not serve one of them."""
        self.note: str | None = None
        """A remark for people about a listing that succeeded; the stack shows it."""
        self._aliases = config.models
        self._trusts = config.trust_models
        self._missing: set[str] = set()
        self._advised = False
        self._odd: set[str] = set()

    @property
    def has_key(self) -> bool:
        """Whether there is a key to list models with; without one, each client sends its own."""
        return True

    async def served(self) -> list[Model]:
        """The models that the backend lists, by its own names. A subclass must implement this."""
        raise NotImplementedError

    def backend_name(self, identifier: str) -> str:
        """The backend's name for a model."""
        return self._aliases.get(identifier, identifier)

    async def list_models(self) -> list[Model]:
        """The models that the backend lists, then the configured names for them.

        Only the configured names, if the backend lists nothing without a client's key, or if it has no list and
        `trust_models` is set.
        """
        self.note = None
        try:
            served = {model.identifier: model for model in await self.served()}
        except LlamaStackError as error:
            if self._needs_a_key(error):
                self.note = "lists nothing without a key"
            elif self._trusts and self._aliases and _does_not_list(error):
                self.note = f"does not list its models ({error.message}); those in 'models' are served on trust"
            else:
                self._advise(error)
                raise
            return [_alias(name, Model(identifier=target)) for name, target in self._aliases.items()]
        missing = self.wanted - served.keys()
        if self._trusts:
            trusted = sorted(target for target in {*self._aliases.values()} if target in missing)
            if trusted:
                self.note = f"does not list {_several(trusted)}; served on trust"
            self._warn_of(missing - {*trusted})
            served_to = {to: served.get(to) or Model(identifier=to) for to in self._aliases.values()}
        else:
            self._warn_of(missing)
            served_to = served
        # If the config gives a listed name to another model, the listed model is hidden.
        own = {name: model for name, model in served.items() if self.backend_name(name) in served}
        aliases = {name: _alias(name, served_to[to]) for name, to in self._aliases.items() if to in served_to}
        return list((own | aliases).values())

    async def register_model(self, model: Model) -> None:
        """Accept a model that the backend serves, or that is served on trust.

        Raises UnsupportedModelError for any other model, AuthenticationError if the backend refuses the key.
        """
        name = self.backend_name(model.identifier)
        if self.is_trusted(model.identifier):
            return
        try:
            served = {m.identifier for m in await self.served()}
        except LlamaStackError as error:
            if self.deps.replaying and self._needs_a_key(error):
                return  # it was registered by a client that had a key
            self._advise(error)
            raise
        if name not in served:
            available = [*served, *self._aliases]
            raise UnsupportedModelError(model.identifier, available=available, provider_id=self.provider_id)

    def _needs_a_key(self, error: LlamaStackError) -> bool:
        return isinstance(error, AuthenticationError | PermissionDeniedError) and not self.has_key

    def is_trusted(self, identifier: str) -> bool:
        """Whether the config says to serve the model although the backend may not list it."""
        return self._trusts and self.backend_name(identifier) in self._aliases.values()

    def _advise(self, error: LlamaStackError) -> None:
        """Log once how to serve the models of a backend that has no list."""
        if self._advised or not _does_not_list(error):
            return
        self._advised = True
        how = "set 'trust_models: true'" if self._aliases else "name them in 'models' and set 'trust_models: true'"
        _LOGGER.warning("provider '%s' gets no list of models; to serve models without one, %s", self.provider_id, how)

    def named(self, entries: Iterable[tuple[str, Mapping[str, Any]]]) -> list[Model]:
        """Models by name and metadata. A model with an invalid name is left out, with a warning in the log."""
        models: list[Model] = []
        for name, metadata in entries:
            try:
                models.append(Model(identifier=name, metadata=dict(metadata)))
            except ValidationError:
                if name not in self._odd:
                    _LOGGER.warning(
                        "provider '%s' leaves out %.100r: not a valid name of a model", self.provider_id, name
                    )
                self._odd.add(name)
        return models

    def _warn_of(self, missing: set[str]) -> None:
        for name in sorted(missing - self._missing):
            _LOGGER.warning(
                "provider '%s' does not serve '%s', which its config names%s",
                self.provider_id,
                name,
                " (trust_models: true serves it anyway)" if name in self._aliases.values() else "",
            )
        self._missing = missing


def _alias(name: str, model: Model) -> Model:
    if name == model.identifier:
        return model
    metadata = {**model.metadata, "alias_of": model.identifier}
    return model.model_copy(update={"identifier": name, "metadata": metadata})


def _does_not_list(error: LlamaStackError) -> bool:
    """Whether the backend is up but has no list of models, or refuses to show it."""
    if error.backend_status is not None and error.backend_status >= 500:
        return error.backend_status == 501
    return isinstance(error, _NO_LIST)


def _several(names: list[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:_MOST_NAMES])
    return shown if len(names) <= _MOST_NAMES else f"{shown} and {len(names) - _MOST_NAMES} more"
