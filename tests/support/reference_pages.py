"""The pages of reference that are made from the code, and what tests read in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
_HEADING = re.compile(r"^(#{2,4}) (.+)$", re.MULTILINE)


class ReferencePage:
    """A page whose sections are headings, with names of code in backticks, and what is said of them."""

    def __init__(self, name: str) -> None:
        self.text = (DOCS / name).read_text(encoding="utf-8")

    def sections(self) -> Iterator[tuple[str, str]]:
        """Each heading of the page with the text below it, code left out."""
        text = re.sub(r"^```\w+\n.*?^```$", "", self.text, flags=re.DOTALL | re.MULTILINE)
        found = list(_HEADING.finditer(text))
        for here, after in zip(found, [*found[1:], None], strict=True):
            yield here[2], text[here.end() : after.start() if after else None]

    def headings(self) -> set[str]:
        return {heading.strip("`") for heading, _ in self.sections()}

    def names(self) -> set[str]:
        """What has a heading, or a row of a table."""
        return self.headings() | {
            cell.strip("`") for _, text in self.sections() for row in rows(text) for cell in row[:1]
        }

    def silent(self) -> list[str]:
        """Headings and rows of which nothing is said."""
        found = []
        for heading, text in self.sections():
            found += [f"{heading}: {row[0]}" for row in rows(text) if not row[-1]]
            prose = [line for line in text.splitlines() if re.match(r"[A-Za-z`\[]", line)]
            explained = [line for line in prose if not line.startswith(("One of ", "Types: ", "Has what "))]
            if heading.startswith("`") and not explained:
                found.append(heading)
            found += [f"{heading}: an empty sentence" for line in text.splitlines() if line == "."]
        return found

    def by_hand(self) -> list[str]:
        """Lines below the introduction that are no headings and come from no block."""
        text = re.sub(r"<!-- generated: .*?<!-- /generated -->", "", self.text, flags=re.DOTALL)
        below = text.partition("\n## ")[2]
        return [line for line in below.splitlines() if line and not line.startswith("#")][1:]


def rows(text: str) -> list[list[str]]:
    """The rows of the tables in a text, without heads and rules."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rules = {place for place, line in enumerate(lines) if re.fullmatch(r"[|-]+", line)}
    kept = [line for place, line in enumerate(lines) if place not in rules and place + 1 not in rules]
    return [[cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in kept]
