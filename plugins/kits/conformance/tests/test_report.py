"""Reports: written and read, compared, and told."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamastack_conformance.report import (
    FAILED,
    NOT_APPLICABLE,
    NOT_TRIED,
    PASSED,
    WAIVED,
    ProviderResults,
    ReportError,
    Result,
    from_json,
    regressions,
    terminal_table,
    to_json,
    to_markdown,
)


def results(suite: str = "TestA", **statuses: str) -> ProviderResults:
    """Results of `tools.works` and the like: `tools="passed"`."""
    made = [Result(f"{topic}.works", "live", "1.0", topic, status) for topic, status in statuses.items()]
    return ProviderResults(suite, "inference", "remote::a", "a", "1", dict.fromkeys(statuses, "supported"), made)


TEXT = st.text(max_size=20)
ANY = st.builds(
    ProviderResults,
    TEXT,
    TEXT,
    TEXT,
    TEXT,
    TEXT,
    st.dictionaries(TEXT, TEXT, max_size=3),
    st.lists(
        st.builds(
            Result,
            TEXT,
            TEXT,
            TEXT,
            st.none() | TEXT,
            TEXT,
            TEXT,
            TEXT,
            TEXT,
            TEXT,
            st.floats(0, 1e6),
            st.dictionaries(TEXT, TEXT, max_size=2),
        ),
        max_size=3,
    ),
)


@given(st.lists(ANY, max_size=3, unique_by=lambda p: (p.name, p.suite)))
def test_a_report_is_read_as_it_was_written(providers: list[ProviderResults]) -> None:
    written = to_json(providers, "1.0")
    read = from_json(written)
    assert to_json(read[::-1], "1.0") == written
    in_order = [replace(p, results=sorted(p.results, key=lambda r: r.id)) for p in providers]
    assert sorted(read, key=str) == sorted(in_order, key=str)


def test_a_report_is_the_same_whatever_came_first() -> None:
    one = results(tools="passed", streaming="failed", logprobs="passed")
    other = replace(one, results=one.results[::-1])
    assert to_json([one], "1.0") == to_json([other], "1.0")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": 1}', '{"format": 1, "providers": [{}]}', '{"format": 1, "providers": 7}']
)
def test_what_is_no_report(text: str) -> None:
    with pytest.raises(ReportError, match="this is no conformance report"):
        from_json(text)


def test_a_report_of_another_format() -> None:
    with pytest.raises(ReportError, match="it has format 3, but only 1 and 2 are known"):
        from_json('{"format": 3, "providers": []}')


def test_a_report_of_the_first_format() -> None:
    check = {"id": "a.b", "tier": "live", "since": "1.0", "capability": None, "status": "failed", "detail": "why"}
    provider = {**vars(results()), "checks": [check]}
    del provider["results"]
    [read] = from_json(json.dumps({"format": 1, "suite_version": "1.0", "providers": [provider]}))
    assert read.results == [Result("a.b", "live", "1.0", None, "failed", "why")]


def test_the_slowest_checks_come_first() -> None:
    made = [Result(f"a.b{n}", "live", "1.0", None, PASSED, duration_s=n % 7) for n in range(20)]
    [provider] = json.loads(to_json([replace(results(), results=made)], "1.0"))["providers"]
    assert len(provider["slowest"]) == 10
    assert provider["slowest"][:3] == [
        {"id": "a.b13", "duration_s": 6},
        {"id": "a.b6", "duration_s": 6},
        {"id": "a.b12", "duration_s": 5},
    ]


def test_what_was_not_tried_is_said_once() -> None:
    untried = [Result(f"a.b{n}", "live", "1.0", None, NOT_TRIED, "the server is down") for n in range(40)]
    before = replace(results(), results=[replace(result, status=PASSED) for result in untried])
    now = replace(results(), results=[Result("a.a", "live", "1.0", None, PASSED), *untried])
    assert not now.conforms
    assert "not tried: 40 checks: the server is down" in terminal_table(now)
    assert to_markdown([now]).count("the server is down") == 1
    assert regressions([before], [now], ["live"]) == ["inference=remote::a: 40 checks that passed are not tried"]


def test_regressions() -> None:
    before = [results(tools=PASSED, images=PASSED, logprobs=FAILED, streaming=PASSED)]
    now = [results("TestOfAnotherName", tools=FAILED, images=PASSED, logprobs=FAILED)]
    assert regressions(before, now, ["live"]) == [
        "inference=remote::a tools.works: was passed, is failed",
        "inference=remote::a streaming.works: was passed, is gone",
    ]
    assert regressions(before, now, ["static"]) == regressions(before, [], ["live"]) == []


def test_two_suites_of_one_provider_are_kept_apart() -> None:
    before = [results("TestServer", tools=PASSED), results("TestFolder", tools=FAILED)]
    now = [results("TestServer", tools=PASSED), results("TestFolder", tools=WAIVED)]
    assert regressions(before, now, ["live"]) == []
    assert regressions(now[:1], [results("TestServer", tools=FAILED), now[1]], ["live"])


def test_nothing_tried_does_not_conform() -> None:
    assert not results(images=NOT_APPLICABLE).conforms
    assert not results().conforms
    assert results(tools=PASSED, images=NOT_APPLICABLE).conforms
    assert terminal_table(results(images=NOT_APPLICABLE))[1] == "images  supported  not applicable"
    assert "| images | supported | not applicable |" in to_markdown([results(images=NOT_APPLICABLE)])
