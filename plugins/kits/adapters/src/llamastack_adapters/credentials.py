"""A backend's key: the operator's from the config, or a client's own from `X-LlamaStack-ProviderData`."""

from __future__ import annotations

from pydantic import SecretStr

from llamastack.provider.context import PROVIDER_DATA_HEADER
from llamastack.provider.deps import Deps
from llamastack.provider.errors import AuthenticationError, InvalidRequestError, LlamaStackError, PermissionDeniedError


def key_text(secret: SecretStr | str | None) -> str:
    """The key as it is sent: without surrounding white space, such as the line break at the end of a file."""
    return (secret.get_secret_value() if isinstance(secret, SecretStr) else secret or "").strip()


def fits_header(key: str) -> bool:
    """Whether a header can hold the key; a line break inside it would start a second header."""
    return key.isascii() and key.isprintable()


class ApiKey:
    """The key that one provider instance sends.

    deps: what the factory received.
    configured: the key of the config.
    field: the field of the provider data that holds a client's own key; that key is preferred. The spec's
    `provider_data_validator` must have this field. None if clients send no keys.
    config_key: where `configured` stands in the config, for error messages.
    needed: whether the backend refuses calls without a key.
    header: the name of the header that holds the key alone, such as `X-Api-Key`; None: `Authorization: Bearer`.
    """

    def __init__(
        self,
        deps: Deps,
        configured: SecretStr | None,
        *,
        field: str | None,
        config_key: str = "api_key",
        needed: bool = True,
        header: str | None = None,
    ) -> None:
        self._deps = deps
        self._configured = key_text(configured)
        self._field = field
        self._config_key = config_key
        self._needed = needed
        self._header = header

    @property
    def configured(self) -> bool:
        """Whether the config has a key."""
        return bool(self._configured)

    @property
    def from_clients(self) -> bool:
        """Whether clients may send keys of their own."""
        return self._field is not None

    def value(self) -> str | None:
        """The key for a call of this request; None if none is needed and none is given.

        Raises AuthenticationError, which says where to give a key, and InvalidRequestError for a key that no header can
        hold.
        """
        own = self._own()
        key = own or self._configured or None
        if key is not None and not fits_header(key):
            kind, place = (InvalidRequestError, self._place) if own else (AuthenticationError, self._config_key)
            raise kind(f"{place}: must be printable ASCII", provider_id=self._deps.provider_id, param=place)
        if key is None and self._needed:
            raise AuthenticationError(
                f"provider '{self._deps.provider_id}' needs a key: {self._ways}",
                provider_id=self._deps.provider_id,
                param=self._place,
            )
        return key

    def bearer(self) -> dict[str, str]:
        """The header that carries the key. Raises as `value` does."""
        key = self.value()
        return {} if key is None else {"Authorization": f"Bearer {key}"}

    def headers(self) -> dict[str, str]:
        """The header that carries the key, as the constructor says. Raises as `value` does."""
        if self._header is None:
            return self.bearer()
        key = self.value()
        return {} if key is None else {self._header: key}

    def explained(self, error: LlamaStackError) -> LlamaStackError:
        """`error`. If it is about the key, it also says whose key was sent and where to give another."""
        if isinstance(error, AuthenticationError | PermissionDeniedError):
            own = self._own()
            what = (
                "the key of this request" if own else f"the configured {self._config_key}" if self._configured else None
            )
            error.amend(
                f"{error.message} ({what or 'no key was given'}; {self._ways})",
                param=self._place if own or not self._configured else self._config_key,
            )
        return error

    @property
    def _place(self) -> str:
        return self._config_key if self._field is None else f"{PROVIDER_DATA_HEADER}.{self._field}"

    @property
    def _ways(self) -> str:
        ways = f"'{self._config_key}' in its config"
        return ways if self._field is None else f"{ways}, or '{self._field}' in the header {PROVIDER_DATA_HEADER}"

    def _own(self) -> str:
        if self._field is None:
            return ""
        return key_text(getattr(self._deps.request_data(), self._field, None))
