"""Fragments of tool calls in a stream of the OpenAI dialect -> whole calls.

Backends number fragments as they like, give the id late, early, in every fragment or never, and some send whole calls.
A call whose arguments may be another call's is a failure: no call is ever given arguments that are not its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from llamastack.api.inference import ToolCallDelta, ToolCallParseStatus
from llamastack_adapters.openai_dialect.object_scan import ObjectScan
from llamastack_adapters.openai_dialect.tool_calls import Finished, Fragment, finished_calls, fragments_of
from llamastack_adapters.surrogate_pairs import SurrogateJoiner


class _Call:
    """A tool call that has begun."""

    __slots__ = (
        "_joiner", "_scan", "_unscanned", "announced", "call_id", "continues", "doubtful", "index", "name", "parts",
        "unsure", "whole_head",
    )  # fmt: skip

    def __init__(self, index: int | None, continues: _Call | None = None) -> None:
        self.index = index
        self.call_id = self.name = ""
        self.parts: list[tuple[int, str]] = []
        """Pieces of the arguments, each with its place among all pieces of the reply."""
        self.continues = continues
        """The call that this one may continue, unless a name of its own arrives."""
        self.unsure = False
        """Whether its arguments may be mixed up with those of another call."""
        self.doubtful = False
        """Whether it is only a repeated name, if no arguments follow."""
        self.announced = False
        self.whole_head = False
        """Whether its id and its name arrived together."""
        self._joiner = SurrogateJoiner()
        self._scan = ObjectScan()
        self._unscanned: list[str] = []

    def take(self, fragment: Fragment, place: int) -> str:
        """Add a fragment. Returns the new text of the arguments."""
        self.whole_head = self.whole_head or bool(fragment.call_id and fragment.name)
        self.call_id = self.call_id or fragment.call_id
        self.name = self.name or fragment.name
        whole = self.continues or self
        text = whole._joiner.add(fragment.arguments) if fragment.arguments else ""
        if text:
            self.parts.append((place, text))
            whole._unscanned.append(text)
        return text

    def close(self, place: int) -> None:
        """No more fragments follow."""
        if held := self._joiner.end():
            self.parts.append((place, held))

    def announce(self) -> bool:
        """Whether to report now that the call has begun: once, and not for a piece."""
        new = not self.announced and self.continues is None
        self.announced = self.announced or new
        return new

    def mark_unsure(self) -> None:
        self.unsure = True

    def mark_doubtful(self) -> None:
        self.doubtful = True

    def make_piece_of(self, call: _Call | None) -> None:
        """Make it a piece of `call`; with None, a call of its own."""
        self.continues = call

    def make_only_call(self) -> None:
        """No other call has a name, so all arguments are its own."""
        self.continues = None
        self.unsure = False

    def add_parts_of(self, piece: _Call) -> None:
        self.parts += piece.parts

    def set_index(self, index: int) -> None:
        self.index = index

    @property
    def scan(self) -> ObjectScan:
        """How complete its arguments are."""
        for text in self._unscanned:
            self._scan.feed(text)
        self._unscanned.clear()
        return self._scan

    @property
    def arguments(self) -> str:
        return "".join(text for _, text in self.parts)


class _Group:
    """The calls that fragments of one index, or without an index, may belong to."""

    def __init__(self) -> None:
        self.calls: list[_Call] = []
        self.by_name: dict[str, _Call] = {}
        self.contested = False
        """Whether fragments arrived while several calls were open, so that it is unknown whose they are."""
        self.loose: _Call | None = None
        """An id that arrived after a complete call, and may be the next call's."""
        self._open: list[_Call] = []
        self._sink: _Call | None = None

    @property
    def newest(self) -> _Call | None:
        return self.calls[-1] if self.calls else None

    def keep_loose(self, piece: _Call) -> None:
        """`piece` came after a complete call, and may be the beginning of the next."""
        self.loose = piece

    def contest(self) -> None:
        self.contested = True

    def add(self, call: _Call) -> None:
        self.loose = None
        self.calls.append(call)
        self._open.append(call)

    def has_several_open(self) -> bool:
        """Whether several calls are open, or were before."""
        if not self.contested and len(self._open) > 1:
            self._open = [call for call in self._open if not call.scan.ended]
            return len(self._open) > 1
        return self.contested

    def owner(self) -> _Call | None:
        """The open call; the newest if there are several, and then it is not certain."""
        if self.has_several_open():
            self.contested = True
            self._open = [call for call in self._open if not call.scan.ended]
            for call in self._open:
                call.mark_unsure()
            self._sink = self._open[-1] if self._open else self._sink
            self._open = []
            return self._sink
        return self._open[0] if self._open else self.newest


class ToolCallAssembler:
    """Assembles the calls of a streamed reply.

    A fragment belongs to the call that has its id. Without a known id it belongs to the only open call of its index.
    Another name, or any name after a complete call, begins another call.
    """

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._by_id: dict[tuple[str, object], _Call] = {}
        self._shared_ids: set[str] = set()
        self._groups: dict[int, _Group] = {}
        self._all = _Group()
        self._guessed_pieces: list[tuple[_Group, _Call]] = []
        self._guessed_names: list[_Group] = []
        self._place = 0
        self._repeats_names = False

    def __bool__(self) -> bool:
        """Whether any call has begun."""
        return bool(self._calls)

    def add(self, delta: Mapping[str, Any]) -> list[ToolCallDelta]:
        """Take the fragments of a delta and return the pieces to send now.

        Raises TypeError or AttributeError for another form.
        """
        return [made for fragment in fragments_of(delta) for made in self._added(fragment)]

    def finish(self, *, regular: bool) -> Finished:
        """All calls of the reply. regular: whether the model itself ended it, so that no arguments are missing."""
        for call in self._calls:
            call.close(self._place + 1)
        named = [call for call in self._calls if call.name]
        if len(named) == 1:  # then no fragment can belong to another
            for call in self._calls:
                call.make_piece_of(named[0])
            named[0].make_only_call()
        else:
            doubted = {id(group): group for group, piece in self._guessed_pieces if not piece.name}
            doubted |= {id(group): group for group in self._guessed_names if len(group.calls) > 1}
            for group in doubted.values():
                for call in group.calls:
                    call.mark_unsure()
        kept = []
        for call in self._calls:
            if call.continues is None or call.name:
                kept.append(call)
            else:
                call.continues.add_parts_of(call)
        # If the owner of some arguments is uncertain, a call that seems to have none may be the owner.
        strays = any(call.unsure or call.scan.surplus or (not call.name and call.parts) for call in kept)
        for call in kept:
            call.parts.sort()
        return finished_calls(
            (call, None if call.unsure else regular and not strays and not call.doubtful) for call in kept
        )

    def _added(self, fragment: Fragment) -> Iterator[ToolCallDelta]:
        call = self._call_of(fragment) or self._begin(fragment)
        self._place += 1
        if call.announce():
            yield ToolCallDelta(content="", parse_status=ToolCallParseStatus.started)
        text = call.take(fragment, self._place)
        if fragment.call_id:
            self._by_id[fragment.call_id, call.index] = self._by_id[fragment.call_id, ...] = call
        if fragment.name:
            for group in self._groups_of(call):
                group.by_name[fragment.name] = call
        if text:
            yield ToolCallDelta(content=text, parse_status=ToolCallParseStatus.in_progress)

    # ---- where a call begins -------------------------------------------------------------------------------------

    def _groups_of(self, call: _Call) -> tuple[_Group, ...]:
        return (self._all,) if call.index is None else (self._all, self._groups.setdefault(call.index, _Group()))

    def _begin(self, fragment: Fragment) -> _Call:
        call = _Call(fragment.index)
        group = self._group_of(fragment)
        before = group.by_name.get(fragment.name) if group is not None and fragment.name else None
        if before is not None and not (before.call_id and fragment.call_id and before.call_id != fragment.call_id):
            # It may also be the same call again.
            call.mark_doubtful()
            before.mark_doubtful()
            if not before.scan.ended:
                call.mark_unsure()
                before.mark_unsure()
        newest = None if group is None else group.newest
        if newest is not None and newest.whole_head and not newest.scan.begun and not fragment.call_id:
            # Its name may be the rest of the previous name, sent in two pieces.
            call.mark_unsure()
            newest.mark_unsure()
        self._calls.append(call)
        for group in self._groups_of(call):
            group.add(call)
        if (fragment.call_id, ...) in self._by_id:
            self._shared_ids.add(fragment.call_id)
        return call

    def _piece_of(self, call: _Call, group: _Group) -> _Call:
        """Treat the fragment as a piece of `call`, for now."""
        piece = _Call(call.index, continues=call)
        self._calls.append(piece)
        if call.scan.ended:
            group.keep_loose(piece)
        if group.has_several_open():
            group.contest()
            self._guessed_pieces.append((group, piece))
        return piece

    def _made_call(self, piece: _Call) -> _Call:
        """Turn a piece that seemed to belong to another call into a call of its own."""
        piece.make_piece_of(None)
        for group in self._groups_of(piece):
            group.add(piece)
        return piece

    # ---- whose a fragment is -------------------------------------------------------------------------------------

    def _call_of(self, fragment: Fragment) -> _Call | None:
        """The call that a fragment belongs to; None if it begins one."""
        if fragment.call_id and fragment.call_id not in self._shared_ids:
            known = self._by_id.get((fragment.call_id, fragment.index)) or self._by_id.get((fragment.call_id, ...))
            if known is not None:
                return self._identified(known, fragment)
        if fragment.name:
            return self._named(fragment)
        return self._nameless(fragment)

    def _group_of(self, fragment: Fragment) -> _Group | None:
        return self._all if fragment.index is None else self._groups.get(fragment.index)

    def _identified(self, known: _Call, fragment: Fragment) -> _Call | None:
        """Find the call by a known id."""
        if known.continues is not None and fragment.name:
            if fragment.name == known.continues.name:
                return known
            return self._made_call(known)
        moved = None not in (fragment.index, known.index) and fragment.index != known.index
        if fragment.name and known.name and (fragment.name != known.name or moved):
            return None  # some backends give all calls one id
        return known

    def _named(self, fragment: Fragment) -> _Call | None:
        """Find the call by its name, if the id is unknown."""
        group = self._group_of(fragment)
        call = None if group is None else group.newest
        if group is None or call is None:
            return None
        if group.loose is not None and not fragment.call_id:
            return self._made_call(group.loose)
        if call.name and call.name != fragment.name:
            return None
        if fragment.call_id and call.call_id and fragment.call_id not in self._shared_ids:
            return None
        blank = not fragment.arguments.strip()
        if call.scan.ended and not blank:
            return None
        if not call.name:
            if call.parts and not (fragment.call_id and call.call_id):
                self._guessed_names.append(group)
        elif call.scan.ended:
            return call if self._repeats_names and not fragment.call_id else None
        elif call.scan.begun:
            self._repeats_names = True
        else:
            call.mark_doubtful()
        if not blank or not call.name:
            group.owner()
        return call

    def _nameless(self, fragment: Fragment) -> _Call | None:
        """Find the call by its index, if neither id nor name helps."""
        group = self._group_of(fragment) or self._numbered_now(fragment.index)
        if group is None:
            return None
        if not fragment.call_id or fragment.call_id in self._shared_ids:
            return group.owner()
        call = group.newest
        if call is None or (call.scan.ended and fragment.arguments.strip()):
            return None
        if not call.call_id:  # the index arrives late
            return group.owner()
        if call.name and fragment.index is not None:
            return self._piece_of(call, group)  # older versions of vLLM give each fragment another id
        return None

    def _numbered_now(self, index: int | None) -> _Group | None:
        """The group of a new index, if the call before has no index and is open."""
        newest = self._all.newest
        if index is None or newest is None or newest.index is not None or newest.scan.ended:
            return None
        owner = self._all.owner()
        if owner is not newest:
            return None
        newest.set_index(index)
        group = self._groups[index] = _Group()
        group.add(newest)
        return group
