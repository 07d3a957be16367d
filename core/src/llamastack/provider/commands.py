"""What a plugin needs for a command of `llamastack`: a description, output and errors.

A command is a `click.Command`. It finds a `CommandOutput` in `ctx.obj` (`@click.pass_obj`). It raises its errors; the
command line shows them and sets the exit status.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

if TYPE_CHECKING:
    from llamastack.provider.deps import Progress

_T = TypeVar("_T")
Style = Literal["", "bold", "dim", "red"]
"""How a piece of a line looks on a terminal with colours."""


@dataclass(frozen=True)
class CliCommand:
    """A command, known by its name and help line, and imported when it is used.

    name: what a person types.
    help: its line in the list of commands.
    target: `package.module:name` of the `click.Command`.
    group: the command group that it is added to, such as `providers`; by default `llamastack` itself.
    connects: whether it talks to a server: it gets `--url` and `--provider-data`, see `CommandOutput.call_server`.
    """

    name: str
    help: str
    target: str
    group: str | None = None
    connects: bool = False


class CliError(Exception):
    """A command failed. lines: one error each. The exit status is `exit_code`."""

    exit_code = 1

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


class WrongInputError(CliError):
    """The command did not start: wrong usage, or a wrong config."""

    exit_code = 2


class Preparing(Protocol):
    """What makes progress: a provider instance of this process, or a server's report of one.

    api: its API. provider_id: its id, unique within its API.
    """

    api: str
    provider_id: str


class ProgressDisplay(Protocol):
    """Shows on stderr what providers prepare."""

    def __call__(self, provider: Preparing, progress: Progress) -> None:
        """Take the progress of one provider."""

    def waiting(self) -> AbstractContextManager[None]:
        """A context for the time that a person waits. On a terminal, progress is drawn as bars."""


class CommandOutput(Protocol):
    """How commands write. It can be pickled, so that worker processes write in the same way."""

    @property
    def debug(self) -> bool:
        """Whether errors are shown with tracebacks."""

    def say(self, text: str, *, err: bool = False) -> None:
        """A line on stdout, or on stderr with `err`. Control characters are made visible."""

    def table(self, headers: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> None:
        """A table on stdout. headers: empty for none. A cell that is `error` stands out."""

    def styled(self, pieces: Iterable[tuple[str, Style]]) -> None:
        """A line on stdout of texts with their styles. Colours only where the terminal and the user want them."""

    def json(self, value: object, *, in_one_line: bool = False) -> None:
        """JSON on stdout."""

    def to_cli_error(self, error: Exception) -> CliError:
        """Any error as lines for a person, with an exit status."""

    def show_errors(self, lines: Iterable[str]) -> None:
        """`error: ...` on stderr, one for each line, without secrets."""

    def progress(self) -> ProgressDisplay:
        """A new display of what providers prepare."""

    def call_server(self, talk: Callable[[Any], Awaitable[_T]]) -> _T:
        """The result of `talk`, which gets a `LlamaStackClient` with all APIs. For a command that `connects`."""
