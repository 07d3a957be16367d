"""Renew the generated blocks of docs/*.md and plugins/*/README.md: `make generate`.

A block stands between `<!-- generated: NAME ARGUMENTS -->` and `<!-- /generated -->`; NAME is a function of `BLOCKS`.
A test compares, so that what the pages say about options, keys, commands and code is what the code says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

import click
from api_reference import BLOCKS as API_REFERENCE
from conformance_pages import BLOCKS as CONFORMANCE
from openai_presets import BLOCKS as OPENAI_PRESETS
from provider_reference import BLOCKS as REFERENCE
from public_modules import BLOCKS as PUBLIC_MODULES
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from read_source import excerpt, table
from read_source import fields_of as text_fields_of
from reference_text import words_of
from rendered_template import BLOCKS as TEMPLATE
from settings_table import BLOCKS as SETTINGS

from llamastack.api.definition import MethodDefinition
from llamastack.api.schema import Schema
from llamastack.provider.builtin_apis import BUILTIN_APIS
from llamastack.stack.config import ProviderConfig, StoreConfig, run_config_model
from llamastack.stack.discovery import default_discovery
from llamastack.stack.plugins import Plugins
from llamastack.stack.stores.sqlite import SqliteStoreConfig
from llamastack_cli.fields import fields_of
from llamastack_cli.fields import words_of as type_words
from llamastack_cli.group import cli
from llamastack_conformance.settings import Settings
from llamastack_conformance.waivers import Waiver
from llamastack_metrics.definitions import METRICS, Kind
from llamastack_metrics.settings import MetricsConfig
from llamastack_openai_api import checked_requests
from llamastack_openai_api.errors import ERROR_TABLE, PREFIX
from llamastack_openai_api.routes import ROUTES
from llamastack_openai_api.routes_beyond_openai import STACK_ROUTES
from llamastack_provider_openai.presets import PRESETS
from llamastack_server.settings import ServerConfig
from llamastack_telemetry.price_settings import PriceEntry, PricesConfig
from llamastack_telemetry.settings import TracingConfig

ROOT = Path(__file__).parents[1]
_PASSTHROUGH = "llamastack-provider-remote"  # one provider type for every API
DOCS = ROOT / "docs"
MARKED = re.compile(r"(<!-- generated: (\S+)(?: ([^\n]*?))? -->\n)(.*?)(<!-- /generated -->)", re.DOTALL)
HELP_WIDTH = 100

# What the stack sets in listings.
READ_ONLY = {"unavailable_reason"}


# ---- run-config.md ---------------------------------------------------------------------------------------------------

SECTIONS: dict[str, type[BaseModel]] = {
    "providers": ProviderConfig,
    "server": ServerConfig,
    "metrics": MetricsConfig,
    "tracing": TracingConfig,
    "prices": PricesConfig,
    "price": PriceEntry,
    "store": StoreConfig,
    "sqlite": SqliteStoreConfig,
}


def _default_of(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    made: Any = field.get_default(call_default_factory=True, validated_data={})
    if made is None or made is PydanticUndefined or isinstance(made, BaseModel):
        return ""
    return f"`{json.dumps(made)}`"


def _rows(model: type[BaseModel]) -> Iterator[tuple[str, ...]]:
    schemas = Schema.of(model).fields
    for name, field in model.model_fields.items():
        kind = type_words(schemas[name]).removesuffix(" or null")
        yield f"`{name}`", kind, _default_of(field), field.description or ""


def run_config(section: str) -> str:
    """The keys of the run config, or of one of its sections."""
    hooks = Plugins(default_discovery())
    model = SECTIONS[section] if section else run_config_model(hooks.apis(), hooks.config_sections())
    return table(("key", "type", "default", "what"), _rows(model))


def metrics(_: str) -> str:
    """Every metric, as Prometheus has it."""
    rows = [
        (
            f"`{metric.name}{'_total' if metric.kind is Kind.counter else ''}`",
            str(metric.kind),
            ", ".join(f"`{label}`" for label in metric.labels),
            metric.help,
        )
        for metric in METRICS
    ]
    return table(("metric", "type", "labels", "what"), rows)


def objects(resource_api: str) -> str:
    """The keys of one kind of object."""
    pair = next(api.pair for api in BUILTIN_APIS if api.pair is not None and api.pair.resource_api == resource_api)
    annotated = get_args(pair.object_type)
    union = get_args(annotated[0]) if annotated else (pair.object_type,)
    rows: dict[str, list[tuple[str, str, str]]] = {}
    words: dict[str, str] = {}
    for member in union:
        cls = get_args(member)[0] if get_args(member) else member
        schemas = Schema.of(cls).fields
        words |= {field.name: words_of(field) for field in text_fields_of(cls, inherited=True)}
        for name, field in cls.model_fields.items():
            if name not in READ_ONLY:
                kind = type_words(schemas[name]).removesuffix(" or null")
                default = _default_of(field)
                rows.setdefault(name, []).append((kind, "" if default == '`""`' else default, _tag(cls)))
    found = []
    for name, members in rows.items():
        kind = " | ".join(dict.fromkeys(kind for kind, _, _ in members))
        defaults = {default for _, default, _ in members}
        only = f" (`type: {members[0][2]}` only)" if len(members) < len(union) else ""
        found.append((f"`{name}`", kind, defaults.pop() if len(defaults) == 1 else "", words[name] + only))
    return table(("key", "type", "default", "what"), found)


def _tag(cls: type[BaseModel]) -> str:
    return str(cls.model_fields["type"].default) if "type" in cls.model_fields else ""


# ---- cli.md ----------------------------------------------------------------------------------------------------------


def cli_help(_: str) -> str:
    """The help text of every command."""
    settings = {**cli.context_settings, "terminal_width": HELP_WIDTH, "max_content_width": HELP_WIDTH}
    return "\n".join(_help_of(cli, click.Context(cli, info_name="llamastack", **settings), "##"))


def _help_of(command: click.Command, context: click.Context, heading: str) -> Iterator[str]:
    yield f"{heading} `{context.command_path}`\n\n```text\n{command.get_help(context).rstrip()}\n```\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None:
                yield from _help_of(child, click.Context(child, parent=context, info_name=name), heading)


# ---- http-api.md, providers.md ---------------------------------------------------------------------------------------


def _streams(method: MethodDefinition) -> str:
    return "yes" if method.piece is not None else ""


def routes(_: str) -> str:
    """Every route of the built-in APIs."""
    return table(
        ("API", "call", "HTTP", "route", "routed by", "streams"),
        [
            (
                api.name,
                f"`{method.name}`",
                ", ".join(method.web.methods),
                f"`{method.web.route}`",
                f"`{method.web.routed_by}`" if method.web.routed_by else "",
                _streams(method),
            )
            for api in BUILTIN_APIS
            for method in api.methods.values()
        ],
    )


def provider_types(_: str) -> str:
    """Every provider type of this repository: what it can, and the fields of its config.

    The presets of OpenAI-compatible services, whose config is alike, have a page of their own.
    """
    discovery = default_discovery()
    own = {f"llamastack-provider-{folder.name}" for folder in (ROOT / "plugins" / "providers").iterdir()}
    passthroughs = [i for i in discovery.providers() if i.package == _PASSTHROUGH]
    own.discard(_PASSTHROUGH)
    text = ""
    presets = {preset.provider_type for preset in PRESETS}
    for installed in [i for i in discovery.providers() if i.package in own and i.name not in presets]:
        text += _provider(discovery.load_spec(installed), installed.package, installed.api)
    spec = discovery.load_spec(passthroughs[0])
    return text + _provider(spec, _PASSTHROUGH, ", ".join(i.api for i in passthroughs))


def _provider(spec: Any, package: str, apis: str) -> str:
    needs = f" Needs the API {', '.join(spec.api_dependencies)}." if spec.api_dependencies else ""
    text = f"## `{spec.provider_type}` for {apis}\n\n{spec.description}. Package: `{package}`.{needs}\n\n"
    if spec.capabilities:
        text += table(("capability", "support"), [(f"`{n}`", s) for n, s in spec.capabilities.items()]) + "\n"
    return text + _config_of(spec) + "\n"


def _config_of(spec: Any) -> str:
    rows = []
    for field in fields_of(spec.load_config_class()):
        default = f"`{field.default}`" if field.default not in (None, "null", "(computed)") else ""
        kind = field.type.removesuffix(" or null")
        rows.append((f"`{field.name}`", kind, "required" if field.required else default, field.description))
    return table(("config", "type", "default", "what"), rows) if rows else "No config.\n"


# ---- plugins/*/README.md ---------------------------------------------------------------------------------------------


def provider_config(arguments: str) -> str:
    """`API TYPE`: the fields of one provider type's config."""
    api, provider_type = arguments.split(" ")
    discovery = default_discovery()
    [installed] = [i for i in discovery.providers() if (i.api, i.name) == (api, provider_type)]
    return _config_of(discovery.load_spec(installed))


# ---- openai.md -------------------------------------------------------------------------------------------------------


def openai_routes(_: str) -> str:
    """The routes of the OpenAI-compatible surface."""
    rows = [(r.http_method, f"`{PREFIX}{r.path}`", f"`{r.api}.{r.method}`", f"<{r.reference}>") for r in ROUTES]
    return table(("HTTP", "route", "served by", "format"), rows)


def stack_routes(_: str) -> str:
    """The routes of `/v1` that are not OpenAI's."""
    rows = [(r.http_method, f"`{PREFIX}{r.path}`", f"`{r.api}.{r.method}`", r.summary) for r in STACK_ROUTES]
    return table(("HTTP", "route", "served by", "what"), rows)


def openai_fields(_: str) -> str:
    """The fields that are translated, and those that change nothing."""
    fields = {
        "/v1/chat/completions": checked_requests.CHAT_FIELDS,
        "/v1/completions": checked_requests.COMPLETION_FIELDS,
        "/v1/embeddings": checked_requests.EMBEDDINGS_FIELDS,
        "all, without effect": checked_requests.IGNORED_FIELDS,
        "inside these, without effect": (*checked_requests.IGNORED_NESTED_FIELDS, "detail", "strict"),
    }
    rows = [(f"`{where}`" if "/" in where else where, _named(names)) for where, names in fields.items()]
    return table(("of", "fields"), rows)


def _named(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def openai_errors(_: str) -> str:
    """The error family in OpenAI's words."""
    rows = [
        (str(words.status or cls.status), f"`{words.type}`", f"`{words.code}`" if words.code else "", f"`{cls.code}`")
        for cls, words in ERROR_TABLE.items()
    ]
    return table(("HTTP status", "`type`", "`code`", "[native code](concepts.md#errors)"), rows)


# ---- code from files -------------------------------------------------------------------------------------------------


def source(arguments: str) -> str:
    """`PATH`, `PATH NAME...` (`name` or `Class.method` of a Python file) or `PATH [table]...` (of a TOML file)."""
    path, *names = arguments.split(" ")
    return excerpt(path, (ROOT / path).read_text(encoding="utf-8"), names)


BLOCKS: dict[str, Callable[[str], str]] = {
    "run-config": run_config,
    "metrics": metrics,
    "conformance-settings": lambda _: table(("field", "type", "default", "what"), _rows(Settings)),
    "conformance-waiver": lambda _: table(("field", "type", "default", "what"), _rows(Waiver)),
    "objects": objects,
    "cli": cli_help,
    "routes": routes,
    "openai-routes": openai_routes,
    "stack-routes": stack_routes,
    "openai-fields": openai_fields,
    "openai-errors": openai_errors,
    "provider-types": provider_types,
    "provider-config": provider_config,
    "source": source,
    **API_REFERENCE,
    **CONFORMANCE,
    **OPENAI_PRESETS,
    **PUBLIC_MODULES,
    **REFERENCE,
    **SETTINGS,
    **TEMPLATE,
}


def renewed(text: str) -> str:
    """`text` with its generated blocks as they are to be."""
    return MARKED.sub(lambda m: f"{m[1]}\n{BLOCKS[m[2]](m[3] or '').strip()}\n\n{m[5]}", text)


def pages() -> list[Path]:
    """The pages that may have generated blocks."""
    return [*sorted(DOCS.rglob("*.md")), *sorted((ROOT / "plugins").glob("*/*/README.md"))]


if __name__ == "__main__":
    for page in pages():
        page.write_text(renewed(page.read_text(encoding="utf-8")), encoding="utf-8")
