"""Code, templates and pages are plain English: some constructions that hide the subject are forbidden."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path
    for pattern in ("core/src", "plugins/*/*/src", "provider_template/src")
    for folder in ROOT.glob(pattern)
    for path in folder.rglob("*.py")
)
PAGES = sorted(
    path
    for pattern in (
        "*.md",
        "docs/*.md",
        "docs/decisions/*.md",
        "core/*.md",
        "plugins/*/*/*.md",
        "provider_template/*.md",
    )
    for path in ROOT.glob(pattern)
    if path.name != "provider-reference.md"  # docstrings, which are read in the sources
) + sorted((ROOT / "provider_template/src").rglob("*.jinja"))
START = r"(?:^|[.!?:] )"
"""The beginning of a sentence."""
FORBIDDEN = {
    START + r"Who (?!are\b|is\b)\w+": "name the subject: 'The client that ...'",
    START + r"One (?:that|whose|who|which)\b": "repeat the noun: 'A model that ...'",
    START
    + r"What (?:is|was|has been|cannot be) (?:not )?\w+(?:ed|en|wn)\b": "name the subject: 'The text that was ...'",
    START + r"None (?:where|for one)\b": "say 'None if ...'",
    START + r"(?:So it is|Likewise it is) ": "name the subject again",
    r"\b[Aa]new\b": "say 'again'",
    r"\btold\b(?! apart)": "say 'reported', 'raised', 'shown' or 'was called'",
    r"\bthe latter(?:'s)?\b": "name the thing again",
    r"\bsuch as it is\b": "leave it out",
    r"\bthe asking of\b": "use the verb: 'asking ...'",
    r"\bwithout a word\b": "say 'without an error' or 'silently'",
    r"\bis said to be\b": "say who says it, or use 'is'",
    r"\bbut for\b": "say 'except' or 'without'",
    r"\bfor ever\b": "say 'forever', or give the limit",
    r"\bsmall letters\b": "say 'lower case'",
    r"\b[Gg]ives? back\b": "say 'return'",
    r"\bto be had\b": "say 'available', or use the verb",
    r"\bof its own accord\b": "say 'by default'",
    r"\bas ever\b": "leave it out",
    r"\ball the same\b": "say 'nevertheless'",
    r"\b(?:None|True|False) where\b": "say 'if'",
    r"\blets? go of\b": "say 'release' or 'close'",
    r"\bpass(?:es|ed|ing)? over\b": "say 'ignore'",
    r"\brouting table\b": "say 'instances' or 'resources'",
    START + r"Where [^.]*\balone\b": "say 'if only ...'",
    r"\b(?:is|are) handed\b": "say 'passed', or name who gets it",
}


BEGINS = re.compile(r"\s*[-*] |\||#{2,6} ")
HEADING = re.compile(r"#{2,6} ")


def texts(source: str) -> Iterator[tuple[int, str]]:
    """(line, text) of the comments, docstrings and messages in a module. A comment of several lines is one text."""
    last = -1
    comment: list[str] = []
    first = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            if comment and token.start[0] != last + 1:
                yield first, " ".join(comment)
                comment = []
            first = first if comment else token.start[0]
            comment.append(token.string.lstrip("# "))
            last = token.start[0]
    if comment:
        yield first, " ".join(comment)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value.strip():
            yield node.lineno, " ".join(node.value.split())


def paragraphs(page: str) -> Iterator[tuple[int, str]]:
    """(line, text) of the paragraphs, list items and table cells of a page or template, without headings and code."""
    first, words = 0, ""
    code = False
    for number, line in enumerate((*page.splitlines(), ""), start=1):
        fence = line.lstrip().startswith("```")
        if code or fence or not line.strip() or BEGINS.match(line):
            yield first, words
            words = ""
        code ^= fence
        if code or fence or HEADING.match(line):
            continue
        if line.startswith("|"):
            yield from ((number, cell.strip()) for cell in line.split("|"))
            continue
        first = first if words else number
        words = f"{words} {line.lstrip(' #-*')}".strip()


def faults(found_texts: Iterator[tuple[int, str]]) -> list[tuple[int, str]]:
    """(line, what is wrong) of each forbidden construction."""
    return [
        (line, f"{found[0]!r}: {advice}")
        for line, text in found_texts
        for pattern, advice in FORBIDDEN.items()
        for found in re.finditer(pattern, re.sub(r"`[^`]*`", "``", text))
    ]


def test_the_sources_are_plain_english() -> None:
    assert len(SOURCES) > 100
    found = [
        f"{path.relative_to(ROOT)}:{line}: {fault}"
        for path in SOURCES
        for line, fault in faults(texts(path.read_text(encoding="utf-8")))
    ]
    assert not found, "\n" + "\n".join(found)


def test_the_pages_and_templates_are_plain_english() -> None:
    assert len(PAGES) > 80
    found = [
        f"{path.relative_to(ROOT)}:{line}: {fault}"
        for path in PAGES
        for line, fault in faults(paragraphs(path.read_text(encoding="utf-8")))
    ]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    "page",
    [
        "- An item.\n- What is refused\n  is not sent.",
        "It ends. One that\nfails is tried again.",
        "| a | Unknown fields are passed over |",
        "# A comment of a template. It lets\n# go of the bank.",
        "The client\nis told.",
    ],
)
def test_a_forbidden_construction_of_a_page_is_found(page: str) -> None:
    assert faults(paragraphs(page))


@pytest.mark.parametrize(
    "page", ["## What is checked\n\nText.", "```py\n# None where it is told\n```", "A `told` is a name."]
)
def test_headings_and_code_of_a_page_are_not_reported(page: str) -> None:
    assert not faults(paragraphs(page))


@pytest.mark.parametrize(
    "source",
    [
        "# Who reads has read enough.",
        '"""A call. One that fails later may have begun."""',
        "# The limit. What is\n# refused is not sent.",
        'raise ValueError("the bank was made anew")',
        'f"{1} the client is told"',
        "# None where there is none.",
        "# All fields but for the name.",
        '"""True where the backend has it; name: in small letters."""',
        "# Wait until it lets go of everything. It is handed to the caller.",
    ],
)
def test_a_forbidden_construction_is_found(source: str) -> None:
    assert faults(texts(source))


@pytest.mark.parametrize(
    "source", ["# The reader closed the pipe.", 'told = "x"', '"""None if the method never streams."""', "# Who is it?"]
)
def test_plain_sentences_and_names_are_not_reported(source: str) -> None:
    assert not faults(texts(source))
