"""The prices of one stack: of its run config, of the file that this names, and of the models themselves."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from llamastack.api.models import Model
from llamastack.provider import hookimpl
from llamastack.provider.provider_call import CallEvent
from llamastack.stack.yaml_source import ConfigError, ConfigIssue, YamlDocument, read_yaml
from llamastack_telemetry.price_settings import PriceEntry, PriceFile, Prices, PricesConfig
from llamastack_telemetry.prices import Cost, Price, PriceTable

if TYPE_CHECKING:
    from llamastack.stack import Stack
    from llamastack.stack.config import LoadedConfig

__all__ = ["PriceList"]

_LOGGER = logging.getLogger("llamastack.telemetry")
SECTION = OF_MODEL = "prices"
"""The key of the run config, and that of a model's metadata."""
_API = "inference"
_LARGEST_FILE = 16 * 1024 * 1024
_MOST_KNOWN = 10_000


class PriceList:
    """The plugin that knows what calls cost. Raises ConfigError for bad prices in the run config or the file."""

    def __init__(self, config: LoadedConfig) -> None:
        settings = config.section(SECTION, PricesConfig)
        self._currency = settings.currency
        self._tables = [_table_of(config, (SECTION, "models"), settings, _instances(config))]
        if settings.file is not None:
            self._tables.append(_table_of_file(config, settings.file))
        for place, model in enumerate(config.objects("models")):
            if OF_MODEL in model.metadata:
                config.validated(Prices, ("models", place, "metadata", OF_MODEL), model.metadata[OF_MODEL])
        self._stack: Stack | None = None
        self._own: dict[tuple[str, str], tuple[object, Price | None]] = {}
        self._warned: set[tuple[str, str]] = set()
        self._last: tuple[CallEvent | None, Cost | None] = (None, None)

    @hookimpl
    def llamastack_stack_lifespan(self, stack: Stack) -> AbstractAsyncContextManager[object]:
        """While the stack runs, its models are known, which may have prices of their own."""
        return self._attached(stack)

    @asynccontextmanager
    async def _attached(self, stack: Stack) -> AsyncIterator[None]:
        self._stack = stack
        try:
            yield
        finally:
            self._stack = None

    @hookimpl
    def llamastack_object_registered(self, api: str, object: object) -> None:
        """Look at its prices now, so that the log says at once what is wrong with them."""
        if api == "models" and isinstance(object, Model):
            self._price_in(object.provider_id, object)

    def cost_of(self, event: CallEvent) -> Cost | None:
        """What a call that has ended costs; None if its model has no price, or its tokens are not known.

        A call that failed has no cost. The calls that a call makes have their own.
        """
        if event.api != _API or event.status == "error":
            return None
        known, cost = self._last
        if known is not event:  # several plugins ask about the same event
            cost = self._cost_of(event)
            self._last = (event, cost)
        return cost

    def _cost_of(self, event: CallEvent) -> Cost | None:
        if event.status != "ok" and event.input_tokens is None:
            return None
        price = self._price_of(event.provider_id, event.identifier)
        if price is None:
            return None
        output = 0 if event.method == "embeddings" else event.output_tokens
        return price.of(event.input_tokens, output, event.cached_tokens)

    def _price_of(self, provider_id: str, model: str) -> Price | None:
        """The model's own prices go before the run config's, and those before the file's."""
        item = None if self._stack is None else self._stack.find_resource(_API, f"{provider_id}/{model}")
        own = self._price_in(provider_id, item) if isinstance(item, Model) else None
        if own is not None:
            return own
        found = (price for table in self._tables if (price := table.find(provider_id, model)) is not None)
        return next(found, None)

    def _price_in(self, provider_id: str, model: Model) -> Price | None:
        if OF_MODEL not in model.metadata:
            return None
        key = (provider_id, model.identifier)
        read_from, price = self._own.get(key, (None, None))
        if read_from is not model:
            price = self._read(key, model.metadata[OF_MODEL])
            if len(self._own) >= _MOST_KNOWN:
                self._own.clear()
            self._own[key] = (model, price)
        return price

    def _read(self, key: tuple[str, str], given: object) -> Price | None:
        source = f"model '{key[1]}' of provider '{key[0]}'"
        try:
            return Price(YamlDocument(given, source).validated(Prices, ("metadata", OF_MODEL), given), self._currency)
        except ConfigError as error:
            if key not in self._warned and len(self._warned) < _MOST_KNOWN:
                self._warned.add(key)
                _LOGGER.warning("%s; it counts as a model without prices of its own", error)
            return None


def _instances(config: LoadedConfig) -> Sequence[str]:
    return [each.provider_id for each in config.run.providers.get(_API, ())]


def _table_of(
    document: YamlDocument, path: tuple[str, ...], prices: PriceFile, instances: Sequence[str] | None
) -> PriceTable:
    """instances: the provider_ids that entries may name; None if any. Raises ConfigError."""
    faults: list[ConfigIssue] = []
    seen: dict[tuple[str, str | None], int] = {}
    for place, entry in enumerate(prices.models):
        first = seen.setdefault((entry.model, entry.provider_id), place)
        if first != place:
            faults.append(document.fault((*path, place), f"has the same model as entry {first}; each may stand once"))
        if instances is not None and entry.provider_id not in (None, *instances):
            what = f"there is no inference provider '{entry.provider_id}'; allowed: {', '.join(instances)}"
            faults.append(document.fault((*path, place, "provider_id"), what))
    if faults:
        raise ConfigError(document.source, faults)
    entries: list[PriceEntry] = prices.models
    return PriceTable((entry, prices.currency) for entry in entries)


def _table_of_file(config: LoadedConfig, name: str) -> PriceTable:
    run_config = Path(config.source)
    file = (run_config.parent if run_config.is_file() else Path()) / name
    path = (SECTION, "file")
    try:
        if file.stat().st_size > _LARGEST_FILE:
            raise config.error(path, f"'{file}' is larger than {_LARGEST_FILE // 1024**2} MiB, which is the most")
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise config.error(path, f"'{file}' is not UTF-8 text: {error.reason} at byte {error.start}") from None
    except OSError as error:
        raise config.error(path, f"'{file}' cannot be read: {error.strerror}") from None
    document = read_yaml(text, source=str(file))
    given = document.value
    if not isinstance(given, Mapping):
        raise document.error((), "must be a mapping with the keys `models` and, if you like, `currency`")
    return _table_of(document, ("models",), document.validated(PriceFile, (), dict(given)), None)
