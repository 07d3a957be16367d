"""Renew the generated blocks of docs/*.md and plugins/*/README.md: `make generate`.

A block stands between `<!-- generated: NAME ARGUMENTS -->` and `<!-- /generated -->`; NAME is a function of `BLOCKS`.
A test compares, so that what the pages say about options, keys, commands and code is what the code says.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from llamastack.api.definition import ApiDefinition, MethodDefinition
from llamastack.cli.fields import fields_of, type_of
from llamastack.cli.group import cli
from llamastack.provider.apis import BUILTIN_APIS
from llamastack.stack.config import ProviderConfig, ServerConfig, StoreConfig, run_config_model
from llamastack.stack.discovery import default_discovery
from llamastack.stack.stores.sqlite import SqliteStoreConfig

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
MARKED = re.compile(r"(<!-- generated: (\S+)(?: ([^\n]*?))? -->\n)(.*?)(<!-- /generated -->)", re.DOTALL)
HELP_WIDTH = 100

# What the fields of objects mean in a run config; their types are read from the code.
OBJECT_WORDS = {
    "identifier": "The name that it is asked for by",
    "provider_id": "The provider that serves it; may be left out where its API has one provider",
    "llama_model": "The Llama model that this is an instance of, where it is one",
    "metadata": "Anything; the provider says what it reads",
    "params": "Settings of the check; the provider says which",
    "type": "The kind; the provider says which it knows",
    "embedding_model": "The model that makes its embeddings",
    "chunk_size_in_tokens": "Size of the pieces that documents are cut into",
    "overlap_size_in_tokens": "Tokens that neighbouring pieces share",
}
READ_ONLY = {"unavailable_reason"}


def table(headers: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table; `|` in a cell is escaped."""
    lines = [f"| {' | '.join(headers)} |", "|" + "---|" * len(headers)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


# ---- run-config.md ---------------------------------------------------------------------------------------------------

SECTIONS: dict[str, type[BaseModel]] = {
    "providers": ProviderConfig,
    "server": ServerConfig,
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
    schema = model.model_json_schema()
    for name, field in model.model_fields.items():
        kind = type_of(schema["properties"][name], schema.get("$defs", {})).removesuffix(" or null")
        yield f"`{name}`", kind, _default_of(field), field.description or ""


def run_config(section: str) -> str:
    """The keys of the run config, or of one of its sections."""
    model = SECTIONS[section] if section else run_config_model({api.name: api for api in BUILTIN_APIS})
    return table(("key", "type", "default", "what"), _rows(model))


def objects(table_api: str) -> str:
    """The keys of one kind of object."""
    pair = next(api.pair for api in BUILTIN_APIS if api.pair is not None and api.pair.table_api == table_api)
    annotated = get_args(pair.object_type)
    union = get_args(annotated[0]) if annotated else (pair.object_type,)
    rows: dict[str, list[tuple[str, str, str]]] = {}
    for member in union:
        cls = get_args(member)[0] if get_args(member) else member
        schema = cls.model_json_schema()
        for name, field in cls.model_fields.items():
            if name not in READ_ONLY:
                kind = type_of(schema["properties"][name], schema.get("$defs", {})).removesuffix(" or null")
                default = _default_of(field)
                rows.setdefault(name, []).append((kind, "" if default == '`""`' else default, _tag(cls)))
    found = []
    for name, members in rows.items():
        kind = " | ".join(dict.fromkeys(kind for kind, _, _ in members))
        defaults = {default for _, default, _ in members}
        only = f" (`type: {members[0][2]}` only)" if len(members) < len(union) else ""
        found.append((f"`{name}`", kind, defaults.pop() if len(defaults) == 1 else "", OBJECT_WORDS[name] + only))
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


def capabilities(_: str) -> str:
    """The capability names of each API that providers implement, and what each stands for."""

    def meant(api: ApiDefinition) -> Iterator[tuple[str, str, str]]:
        stands: dict[str, list[str]] = {}
        for method in api.methods.values():
            if method.web.capability:
                stands.setdefault(method.web.capability, []).append(f"`{method.name}`")
            for param, name in method.web.argument_capabilities.items():
                stands.setdefault(name, []).append(f"`{param}` of `{method.name}`")
        for name, what in stands.items():
            yield api.name, f"`{name}`", ", ".join(what)

    rows = [row for api in BUILTIN_APIS if not api.implemented_by_stack for row in meant(api)]
    return table(("API", "capability", "stands for"), rows)


def private_hooks(_: str) -> str:
    """The hooks of the routed pairs."""
    rows = []
    for pair in dict.fromkeys(api.pair for api in BUILTIN_APIS if api.pair is not None):
        hooks = (pair.list_hook, pair.register_hook, pair.unregister_hook, pair.forget_hook)
        rows.append((pair.routed_api, f"`{pair.private_protocol.__name__}`", *(f"`{hook}`" for hook in hooks)))
    return table(("API", "Protocol", "list", "register", "unregister (optional)", "forget (optional)"), rows)


def provider_types(_: str) -> str:
    """Every provider type of this repository: what it can, and the fields of its config."""
    discovery = default_discovery()
    passthroughs = [i for i in discovery.providers() if i.distribution == "llamastack"]
    own = {f"llamastack-provider-{folder.name}" for folder in (ROOT / "plugins").iterdir()}
    text = ""
    for installed in [i for i in discovery.providers() if i.distribution in own]:
        text += _provider(discovery.load_spec(installed), installed.distribution, installed.api)
    spec = discovery.load_spec(passthroughs[0])
    return text + _provider(spec, "llamastack", ", ".join(i.api for i in passthroughs))


def _provider(spec: Any, distribution: str, apis: str) -> str:
    needs = f" Needs the API {', '.join(spec.api_dependencies)}." if spec.api_dependencies else ""
    text = f"## `{spec.provider_type}` for {apis}\n\n{spec.description}. Package: `{distribution}`.{needs}\n\n"
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


# ---- code from files -------------------------------------------------------------------------------------------------


def source(arguments: str) -> str:
    """`PATH`, `PATH NAME...` (top-level names of a Python file) or `PATH [table]...` (tables of a TOML file)."""
    path, *names = arguments.split(" ")
    text = (ROOT / path).read_text(encoding="utf-8").rstrip() + "\n"
    kind = {".py": "python", ".toml": "toml", ".yaml": "yaml"}[Path(path).suffix]
    if names and kind == "python":
        text = _definitions(text, names)
    elif names:
        parts = re.split(r"\n(?=\[)", text)
        text = "\n".join(next(p.rstrip() + "\n" for p in parts if p.startswith(name)) for name in names)
    return f"```{kind}\n{text}```\n"


def _definitions(text: str, names: list[str]) -> str:
    lines = text.splitlines()
    found: dict[str, str] = {}
    for node in ast.parse(text).body:
        own = [getattr(node, "name", "")]
        if isinstance(node, ast.Assign):
            own = [target.id for target in node.targets if isinstance(target, ast.Name)]
        for name in own:
            found[name] = "\n".join(lines[node.lineno - 1 : node.end_lineno]) + "\n"
    return "\n\n".join(found[name] for name in names)


BLOCKS: dict[str, Callable[[str], str]] = {
    "run-config": run_config,
    "objects": objects,
    "cli": cli_help,
    "routes": routes,
    "capabilities": capabilities,
    "private-hooks": private_hooks,
    "provider-types": provider_types,
    "provider-config": provider_config,
    "source": source,
}


def renewed(text: str) -> str:
    """`text` with its generated blocks as they are to be."""
    return MARKED.sub(lambda m: f"{m[1]}\n{BLOCKS[m[2]](m[3] or '').strip()}\n\n{m[5]}", text)


def pages() -> list[Path]:
    """The pages that may have generated blocks."""
    return [*sorted(DOCS.rglob("*.md")), *sorted((ROOT / "plugins").glob("*/README.md"))]


if __name__ == "__main__":
    for page in pages():
        page.write_text(renewed(page.read_text(encoding="utf-8")), encoding="utf-8")
