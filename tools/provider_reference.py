"""The blocks of docs/provider-reference.md: all that a provider author imports, as the code has it."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from types import ModuleType
from typing import Any

from pydantic import BaseModel
from read_source import (
    Doc,
    annotations,
    bullets,
    capital,
    class_doc,
    definitions,
    doc_of,
    function_doc,
    function_node,
    method_nodes,
    signature,
    signatures,
    table,
    tree,
    values,
)
from reference_text import (
    IMPLEMENTED,
    PAIRS,
    api_module,
    bases_of,
    class_text,
    fields_table,
    in_a_row,
    life_hooks,
    names_in,
    plain_type,
    type_names,
)

from llamastack import provider
from llamastack.api import Api
from llamastack.api.definition import IMAGES, MethodDefinition
from llamastack.provider import Capabilities, InlineProviderSpec, RemoteProviderSpec, errors, hookspecs, protocols
from llamastack.stack.discovery import PROVIDER_GROUP_PREFIX

_LONGEST_LINE = 120


# ---- the package, the spec, the factory ------------------------------------------------------------------------------


def spec(_: str) -> str:
    """The two classes, and the fields that both have."""
    rows = [
        (f"`{cls.__name__}`", f"`{cls.kind}`", class_doc(cls).first) for cls in (InlineProviderSpec, RemoteProviderSpec)
    ]
    kinds = table(("class", "`kind`", "what"), rows)
    return f"{kinds}\n{attributes('ProviderSpec')}"


def capability_support(_: str) -> str:
    """The words that a capability can have."""
    return class_doc(Capabilities).text + "\n"


def capabilities(_: str) -> str:
    """The capability names of each API that providers implement, and what each stands for."""
    rows = [(api.name, f"`{name}`", ", ".join(what)) for api in IMPLEMENTED for name, what in api.capabilities.items()]
    return table(("API", "capability", "stands for"), rows)


# ---- hooks that the stack calls --------------------------------------------------------------------------------------


def life(_: str) -> str:
    """The hooks that every provider may have."""
    shown = "\n".join(f"async def {name}() -> None" for name in life_hooks())
    rows = [(f"`{name}`", f"Optional. {capital(words)}") for name, words in life_hooks().items()]
    return f"{signatures(shown)}\n{table(('hook', 'what'), rows)}"


def private_hooks(_: str) -> str:
    """The hooks of the routed pairs: those that must be there in full, and the optional ones."""
    text = ""
    optional = bullets(protocols.__doc__)
    for pair in PAIRS:
        protocol = pair.private_protocol
        nodes = method_nodes(protocol)
        argument = signature(nodes[pair.register_hook]).partition("(")[2]
        text += f"### `{protocol.__name__}`\n\n{class_doc(protocol).text}\n\n"
        shown = [signature(nodes[name]) for name in (pair.list_hook, pair.register_hook)]
        rows = [(f"`{name}`", in_a_row(function_doc(nodes[name]))) for name in (pair.list_hook, pair.register_hook)]
        for name in (pair.unregister_hook, pair.forget_hook):
            shown.append(f"async def {name}({argument}")
            rows.append((f"`{name}`", f"Optional. {capital(optional[name.partition('_')[0] + '_*'])}"))
        text += f"{signatures(chr(10).join(shown))}\n{table(('hook', 'what'), rows)}\n"
        if pair.optional_protocol is not None:
            text += _optional_hooks(pair.optional_protocol, pair.optional_hooks)
    return text


def _optional_hooks(protocol: type, names: Iterable[str]) -> str:
    nodes = method_nodes(protocol)
    shown = "\n".join(signature(nodes[name]) for name in names)
    rows = [(f"`{name}`", f"Optional. {in_a_row(function_doc(nodes[name]))}") for name in names]
    about = f"### `{protocol.__name__}`\n\n{class_doc(protocol).text}\n\n"
    return f"{about}{signatures(shown)}\n{table(('hook', 'what'), rows)}\n"


# ---- APIs ------------------------------------------------------------------------------------------------------------


def api(name: str) -> str:
    """The methods of one API, as a provider implements them."""
    [found] = [one for one in IMPLEMENTED if one.name == name]
    nodes = method_nodes(found.protocol)
    return "\n".join(_method(method, nodes[method.name]) for method in found.methods.values())


def _method(method: MethodDefinition, node: ast.AsyncFunctionDef | ast.FunctionDef) -> str:
    facts = [f"`{' | '.join(method.web.methods)} {method.web.route}`"]
    if method.web.routed_by:
        facts.append(f"routed by `{method.web.routed_by}`")
    if method.web.capability:
        facts.append(f"capability `{method.web.capability}`")
    facts += [f"`{param}` needs `{needed}`" for param, needed in method.web.argument_capabilities.items()]
    facts += [f"images in `{param}` need `{IMAGES}`" for param in method.web.image_arguments]
    doc = function_doc(node).with_items()
    names = dict.fromkeys(re.findall(r"\w+", signature(node)))
    links = [f"[`{name}`](#{name.lower()})" for name in names if name in type_names()]
    met = f"\nTypes: {', '.join(links)}.\n" if links else ""
    return f"#### `{method.name}`\n\n{signatures(signature(node))}\n{doc}\n\n{', '.join(facts)}.\n{met}"


def apis(_: str) -> str:
    """The APIs that providers implement."""
    rows = []
    for one in Api:
        [found] = [definition for definition in IMPLEMENTED if definition.name == one.value]
        group, what = f"{PROVIDER_GROUP_PREFIX}{one.value}", class_doc(found.protocol).text
        rows.append((f"`Api.{one.name}`", f"`{group}`", f"[`{found.protocol.__name__}`](#{one.value})", what))
    return table(("API", "entry-point group", "Protocol", "what"), rows)


def _assignment(name: str, value: str) -> str:
    """As the formatter has it: its quotes, its powers; a union that is too long for a line has one for each member."""
    value = value.replace("'", '"').replace(" ** ", "**")
    line = f"{name} = {value}"
    if len(line) <= _LONGEST_LINE or " | " not in value:
        return line
    members = "\n    | ".join(value.split(" | "))
    return f"{name} = (\n    {members}\n)"


def _enumeration(cls: type[StrEnum]) -> str:
    listed = ", ".join(f"`{member.value}`" for member in cls)
    return f"#### `{cls.__name__}`\n\n{class_doc(cls).text}\n\nOne of {listed}.\n"


def types(name: str) -> str:
    """The types of one module of `llamastack.api`."""
    module = api_module(name)
    assigned = values(module)
    parts = []
    for one in names_in(name):
        found = vars(module)[one]
        if one in assigned:
            source, words = assigned[one]
            parts.append(f"#### `{one}`\n\n{signatures(_assignment(one, plain_type(source)))}\n{words}.\n")
        elif isinstance(found, type) and issubclass(found, StrEnum):
            parts.append(_enumeration(found))
        elif isinstance(found, type) and issubclass(found, BaseModel):
            about = [class_doc(found).text, bases_of(found), fields_table(found)]
            parts.append(f"#### `{one}`\n\n" + "\n\n".join(part for part in about if part))
        elif inspect.isfunction(found):
            parts.append(_function(found, "####"))
    return "\n".join(parts)


# ---- plugins ---------------------------------------------------------------------------------------------------------


def hooks(_: str) -> str:
    """The hooks for pluggy, and the class that one of them is given."""
    nodes = [function_node(hook) for hook in hook_specs().values()]
    text = "\n".join(f"### `{n.name}`\n\n{signatures(signature(n))}\n{function_doc(n).with_items()}\n" for n in nodes)
    _, words = values(hookspecs)["hookimpl"]
    about = doc_of(hookspecs.__doc__).text
    handed = (hookspecs.FinishedRequest, hookspecs.IncomingRequest, hookspecs.Action, hookspecs.Resource)
    classes = "\n".join(class_text(each, "###") for each in handed)
    return f"{about}\n\n### `hookimpl`\n\n{words}.\n\n{text}\n{classes}"


def hook_specs() -> dict[str, Callable[..., Any]]:
    """The hook specifications by name."""
    return {name: hook for name, hook in vars(hookspecs).items() if hasattr(hook, f"{hookspecs.PROJECT}_spec")}


# ---- errors ----------------------------------------------------------------------------------------------------------


def error_family(root: type[errors.LlamaStackError] = errors.LlamaStackError) -> Iterator[type[errors.LlamaStackError]]:
    """The classes of the error family, each before those below it."""
    yield root
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from error_family(child)


def error_classes(_: str) -> str:
    """The error family, and how each of it is made."""
    rows = []
    made: dict[type[errors.LlamaStackError], list[str]] = {}
    for cls in error_family():
        parents = ", ".join(f"`{base.__name__}`" for base in cls.__bases__)
        # Those of the stack alone are not among the package's own names.
        name = cls.__name__ if cls.__name__ in provider.__all__ else f"{cls.__module__}.{cls.__name__}"
        rows.append((f"`{name}`", str(cls.status), f"`{cls.code}`", parents, class_doc(cls).text))
        owner = next(base for base in cls.__mro__ if "__init__" in vars(base))
        made.setdefault(owner, []).append(cls.__name__)
    text = table(("class", "HTTP status", "code", "parent", "when"), rows)
    for owner, names in made.items():
        node = method_nodes(owner)["__init__"]
        items = {**class_doc(owner).items, **function_doc(node).items}
        others = ", ".join(f"`{name}`" for name in names if name != owner.__name__)
        parts = [signatures(signature(node, constructor_of=owner.__name__)).rstrip()]
        parts += [f"The same: {others}." if others else "", Doc(items=items).with_items()]
        text += "\n" + "\n\n".join(part for part in parts if part) + "\n"
    return text + "\n" + class_text(errors.ErrorFields, "###")


# ---- helpers ---------------------------------------------------------------------------------------------------------

HELPERS = (
    "llamastack_adapters.remote_inference",
    "llamastack_adapters.chat_request",
    "llamastack_adapters.openai_dialect",
    "llamastack_adapters.backend",
    "llamastack.provider.connection_errors",
    "llamastack_adapters.capabilities",
    "llamastack_adapters.http_client",
    "llamastack_adapters.transports",
    "llamastack_adapters.url_paths",
    "llamastack_adapters.decompression",
    "llamastack.http.answer_limits",
    "llamastack.http.client",
    "llamastack.http.connections",
    "llamastack.http.retry_headers",
    "llamastack_adapters.credentials",
    "llamastack.provider.context",
    "llamastack.provider.jobs",
    "llamastack.provider.provider_call",
    "llamastack.provider.private_files",
    "llamastack_adapters.error_bodies",
    "llamastack_adapters.rate_limit_retries",
    "llamastack_adapters.reply_checks",
    "llamastack.provider.streams",
    "llamastack_adapters.event_streams",
    "llamastack.http.sse",
    "llamastack_adapters.sse_blocks",
    "llamastack.http.lone_surrogates",
    "llamastack_adapters.surrogate_pairs",
    "llamastack_memory_kit",
    "llamastack_memory_kit.flat_records",
    "llamastack_memory_kit.sqlite",
    "llamastack_memory_kit.documents",
    "llamastack_telemetry",
    "llamastack_adapters.data_urls",
    "llamastack_adapters.tool_schemas",
    "llamastack.provider.routes",
    "llamastack.provider.commands",
    "llamastack.provider.config_sections",
)
"""The modules that are meant for authors beside the own names of `llamastack.api` and `llamastack.provider`."""


def helper_module(name: str) -> ModuleType:
    return importlib.import_module(name)


def helper_names(name: str) -> list[str]:
    """The public names of one of `HELPERS`."""
    module = helper_module(name)
    return list(getattr(module, "__all__", None) or definitions(module))


def helper(name: str) -> str:
    """One module of helpers."""
    module = helper_module(name)
    parts = [doc_of(ast.get_docstring(tree(module))).text + "\n"]
    for one in helper_names(name):
        found = getattr(module, one)
        if isinstance(found, type) and found.__name__ == one:
            parts.append(_enumeration(found) if issubclass(found, StrEnum) else class_text(found, "####"))
        elif inspect.isfunction(found):
            parts.append(_function(found, "####"))
        else:
            definer = _definer(module, one)
            source, words = values(definer)[one]
            line = _assignment(one, plain_type(source))
            if len(line) > _LONGEST_LINE and one in annotations(definer) and "\n" not in line:
                line = f"{one}: {annotations(definer)[one]}"
            parts.append(f"#### `{one}`\n\n{signatures(line)}\n{words}.\n")
    return "\n".join(parts)


def _definer(module: ModuleType, name: str) -> ModuleType:
    """The module that defines a value, which a package may only hand on."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.ImportFrom) and node.module and any(alias.name == name for alias in node.names):
            return importlib.import_module(node.module)
    return module


def _function(function: Any, level: str) -> str:
    node = function_node(inspect.unwrap(function))
    return f"{level} `{node.name}`\n\n{signatures(signature(node))}\n{function_doc(node).with_items()}\n"


def attributes(name: str) -> str:
    """A class of `llamastack.provider`: what it is, its fields, its methods."""
    return class_text(getattr(provider, name), "###")


BLOCKS: dict[str, Callable[[str], str]] = {
    "spec": spec,
    "class": attributes,
    "capability-support": capability_support,
    "capabilities": capabilities,
    "life": life,
    "private-hooks": private_hooks,
    "apis": apis,
    "api": api,
    "types": types,
    "hooks": hooks,
    "errors": error_classes,
    "helper": helper,
}
