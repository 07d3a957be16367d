"""A page that is wrong fails: in what it shows, in how a command ends, in what it replaces."""

from __future__ import annotations

from pathlib import Path

import pytest
from page_runner import Command, PageFile, edited, matches, reader, steps

MODULE = "from a import b\n\n\nclass C:\n    def one(self):\n        return b\n\n    def two(self):\n        return 2\n"


def follow(page: str, folder: Path) -> None:
    with reader(folder, {}) as found:
        found.follow(page)


def test_a_page_is_read_in_order() -> None:
    page = "```console\n$ one \\\n    more\nout\n$ two\n```\n```python\n# a/b.py\n1\n```\n```text\nno\n```\n"
    assert [*steps(page)] == [
        Command("one \\\n    more", "out"),
        Command("two", ""),
        PageFile("a/b.py", "# a/b.py\n1\n"),
    ]


def test_a_page_that_is_right(tmp_path: Path) -> None:
    """Files, the directory, variables and output go from one command to the next."""
    follow(
        "```yaml\n# new/a.yaml\nx: 1\n```\n"
        "```console\n$ cd new\n$ export X=1\n$ cat a.yaml; echo $X\n# new/a.yaml\n...\n1\n"
        "$ ls gone; echo error: gone; false\n...\nerror: ...\n```\n",
        tmp_path,
    )


@pytest.mark.parametrize(
    "command",
    ["echo one\ntwo", "false", "echo error: x\nerror: x", "false; echo two\none", "printf 'a\\nb'\na\n...\nc"],
)
def test_a_page_that_is_wrong(command: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        follow(f"```console\n$ {command}\n```\n", tmp_path)


@pytest.mark.parametrize(
    ("shown", "got"),
    [("a\n...\nb", "a\nb"), ("a\n...\nb", "a\nx\ny\nb"), ("...\nb", "x\nb"), ("a ...", "a 12 s"), ("a", "a  \n")],
)
def test_dots_stand_for_anything(shown: str, got: str) -> None:
    assert matches(shown, got)
    assert not matches(shown, f"{got}\nmore") or shown.endswith("...")


def test_parts_of_a_file_are_replaced() -> None:
    changed = edited(MODULE, "from a import c\n\n\nasync def one(self):\n    return c\n")
    assert changed == MODULE.replace("import b", "import c").replace("def one", "async def one").replace("rn b", "rn c")
    with pytest.raises(LookupError, match="the file has 0 of three"):
        edited(MODULE, "def three(): ...")
