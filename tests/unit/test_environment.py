"""`${env.NAME}` is read as it is meant, or refused with its place; nothing is read by half."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llamastack.stack import ConfigError, Stack
from llamastack.stack.discovery import Discovery
from llamastack.stack.environment import SubstitutionError, substituted
from llamastack.stack.yaml_source import read_yaml

SET = {"A": "a", "EMPTY": "", "URL": "http://x:1/{y}"}


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("${env.A}", "a"),
        ("x${env.A}y${env.A}z", "xayaz"),
        ("${env.N:d}", "d"),
        ("${env.N:}", ""),
        ("${env.N:=d}", "d"),
        ("${env.N:=}", ""),
        ("${env.EMPTY:=d}", "d"),
        ("${env.EMPTY:d}", "d"),
        ("${env.A:=d}", "a"),
        ("${env.A:+v}", "v"),
        ("${env.N:+v}", ""),
        ("${env.EMPTY:+v}", ""),
        ("${env.A:+${env.A}-${env.N:=x}}", "a-x"),
        ("${env.N:${env.M:x}}", "x"),
        ("${env.N:=${env.A}}", "a"),
        ("${env.A:=${env.N}}", "a"),
        ("${env.N:${env.M:${env.O:=deep}}}!", "deep!"),
        ("${env.N:http://${env.HOST:=localhost}:${env.PORT:=80}/v1}", "http://localhost:80/v1"),
        ("${env.N:=~/.llamastack}/x", "~/.llamastack/x"),
        ('${env.N:={"a": {"b": 1}}}', '{"a": {"b": 1}}'),
        ("${env.N:${HOME}/x}", "${HOME}/x"),
        ("${env.N:-1}", "-1"),
        ("${env.N:-0.5}", "-0.5"),
        ("${env.N:==d}", "=d"),
        ("${env.N:=-text}", "-text"),
        ("${env.N:a:b=c+d}", "a:b=c+d"),
        ("{${env.N:x}}", "{x}"),
        ("{{ ${env.A} }}", "{{ a }}"),
        ("${env.A}}", "a}"),
        ("${env.URL}", "http://x:1/{y}"),
        ("${envoy.X} ${env_name} ${ENV.X} $env.X ${HOME} }{", "${envoy.X} ${env_name} ${ENV.X} $env.X ${HOME} }{"),
    ],
)
def test_what_is_meant(text: str, meant: str) -> None:
    assert substituted(text, SET) == meant


@pytest.mark.parametrize(
    "text",
    [
        "${env",
        "${env}",
        "${env.",
        "${env.}",
        "${env.1A}",
        "${env. A}",
        "${env.A ",
        "${env.A }",
        "${env.A",
        "${env.A-d}",
        "${env.A=d}",
        "${env.A:d",
        "${env.A:=${env.B:x}",
        "${env.N:{x}",
        "${env.N:x}}",
        "${env.N:a}b} c",
        "${env:A}",
        "${env[A]}",
        "${env.A?}",
        "${env.A:?must be set}",
        "${env.A:-localhost}",
        "${env.A:-}",
        "${env.A:-${env.B}}",
        "${env.A:+${env.B}",
        "${env.A:=${env.}}",
        "${env.A} ${env.B",
        "${env.N:" * 500 + "}" * 500,
    ],
)
def test_what_is_malformed_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_yaml(f"a: 1\nb:\n  c: '{text}'\n", SET)
    [fault] = caught.value.faults
    assert (fault.line, fault.path) == (3, ("b", "c"))
    assert "is not set" not in fault.message


@pytest.mark.parametrize("text", ["${env.N}", "${env.EMPTY}", "${env.N:=${env.M}}", "${env.A:+${env.N}}"])
def test_what_is_needed_and_not_set(text: str) -> None:
    with pytest.raises(SubstitutionError, match=r"environment variable '(N|M|EMPTY)' is not set .*:=default"):
        substituted(text, SET)


def test_keys_are_not_substituted() -> None:
    with pytest.raises(ConfigError, match="keys are not substituted") as caught:
        read_yaml("a:\n  '${env.A}': 1\n", SET)
    assert caught.value.faults[0].line == 2


def test_a_nested_default_keeps_its_type() -> None:
    assert read_yaml("a: ${env.N:${env.M:=8}}", SET).value == {"a": 8}
    assert read_yaml("a: '${env.N:${env.M:=8}}'", SET).value == {"a": "8"}


NAMES = st.sampled_from(["A", "EMPTY", "URL", "N", "M"])
PLAIN = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="{}$"), max_size=6)


def balanced(inner: st.SearchStrategy[tuple[str, str]]) -> st.SearchStrategy[tuple[str, str]]:
    """(text, what it means) of pieces put together, in braces, and as the default or the value of a variable."""

    def reference(name: str, operator: str, piece: tuple[str, str]) -> tuple[str, str]:
        written, means = piece
        value = SET.get(name, "")
        if operator == ":" and written[:1] in tuple("=+-?"):
            operator = ":="
        text = f"${{env.{name}{operator}{written}}}"
        return text, (means if value else "") if operator == ":+" else value or means

    return st.one_of(
        st.lists(inner, max_size=3).map(lambda ps: ("".join(p[0] for p in ps), "".join(p[1] for p in ps))),
        inner.map(lambda p: (f"{{{p[0]}}}", f"{{{p[1]}}}")),
        st.builds(reference, NAMES, st.sampled_from([":", ":=", ":+"]), inner),
    )


@given(st.recursive(PLAIN.map(lambda text: (text, text)), balanced, max_leaves=12))
def test_whatever_is_well_formed_is_read_as_meant(piece: tuple[str, str]) -> None:
    text, means = piece
    assert substituted(text, SET) == means


MANGLED = st.lists(
    st.sampled_from(["${env", ".", "A", "N", ":", "=", "+", "-", "}", "{", "$", " ", "x", "${env.A}", "${env.N:d}"]),
    max_size=14,
).map("".join)


@given(MANGLED | st.text())
@example("${env.A:=${env.B}")
def test_any_text_is_read_in_full_or_refused(text: str) -> None:
    environment = dict.fromkeys("ANB", "v")
    try:
        made = substituted(text, environment)
    except SubstitutionError:
        assert re.search(r"\$\{env(?!\w)", text), "what is not ${env stays untouched"
        return
    assert not re.search(r"\$\{env(?!\w)", made)
    if not re.search(r"\$\{env(?!\w)", text):
        assert made == text


@pytest.mark.parametrize(
    "value",
    ["sk-hunter2${env.X", "${env.X:sk-hunter2", "${env.sk-hunter2}", "${env.1:sk-hunter2}", "${env.N}sk-hunter2"],
)
def test_the_text_around_is_not_shown(value: str, tmp_path: Path, discovery: Discovery) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(f"providers:\n  inference:\n  - config: {{api_key: '{value}'}}\n")
    with pytest.raises(ConfigError) as caught:
        Stack.from_config(file, discovery=discovery)
    assert "hunter2" not in str(caught.value)
    assert f"{file}:3: providers.inference[0].config.api_key: " in str(caught.value)
