"""What the tests of the core and of every plugin share."""

import gc

import pytest
from anyio._core import _eventloop
from hypothesis import settings

pytest_plugins = ["stack_fixtures", "backends.fixtures", "pytester"]

# With sniffio, which OpenAI's SDK brings along, anyio.run fails in a test that runs while a fixture of another module
# has a loop. Without it, anyio asks asyncio.
_eventloop.sniffio = None

# How long one example takes says something of the machine, not of what is tested; and each run tries the same ones.
settings.register_profile("llamastack", deadline=None, derandomize=True)
settings.load_profile("llamastack")


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """A long text is named after its argument: an id is also an environment variable, and a PDF file has a date."""
    return argname if isinstance(val, str | bytes) and len(val) > 200 else None


def pytest_collection_finish() -> None:
    """What was imported and collected stays: to search it for garbage again and again takes 6 in 100 of the time."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests that may take longest run first, then the other groups: no worker is left with one at the end."""
    items.sort(key=_start_later)


def _start_later(item: pytest.Item) -> tuple[float, bool]:
    limit = item.get_closest_marker("timeout")
    return -limit.args[0] if limit else 0, item.get_closest_marker("xdist_group") is None
