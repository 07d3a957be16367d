"""What hooks report is counted, with a bound on the series."""

from __future__ import annotations

import logging

import pytest

from llamastack.provider.hookspecs import FinishedRequest
from llamastack.provider.provider_call import CallEvent, ProviderCall, ProviderMethod
from llamastack_metrics.recorder import Recorder
from llamastack_metrics.settings import MetricsConfig
from llamastack_metrics.snapshots import Snapshot, added_up

BY = ProviderMethod("chat_completion", "chat_completion", lambda call: call.request, lambda request: request)


def request(route: str | None, *, method: str = "GET", took: float = 0.0, status: int = 200) -> FinishedRequest:
    return FinishedRequest("id", method, "/a/raw/path", status, took, route)


def events(model: str = "m", *, stream: bool = False, **ended: object) -> tuple[CallEvent, CallEvent]:
    call = ProviderCall("inference", "chat_completion", model, "p", stream, {}, None, BY)
    started = CallEvent("1", None, "inference", "chat_completion", model, "p", "remote::x", None, call=call)
    values = {"status": "ok", "duration_s": 0.2, **ended}
    return started, started._replace(**values)  # type: ignore[arg-type]


def test_a_request_falls_into_one_bucket() -> None:
    recorder = Recorder(MetricsConfig(duration_buckets_s=(0.1, 1)))
    for took in (0.1, 0.5, 1.0, 7.0):
        recorder.llamastack_request_finished(request("/a", took=took))
    assert recorder.requests == {("GET", "/a", "200"): [1, 2, 1, pytest.approx(8.6)]}


def test_a_made_up_method_and_a_missing_route_are_other() -> None:
    recorder = Recorder(MetricsConfig())
    recorder.llamastack_request_finished(request(None, method="MKCALENDAR", status=404))
    assert [*recorder.requests] == [("other", "other", "404")]


def test_calls_and_streams_run_until_they_have_ended() -> None:
    recorder = Recorder(MetricsConfig(duration_buckets_s=(1,), first_token_buckets_s=(0.1,)))
    started, ended = events(stream=True, first_piece_s=0.05, input_tokens=3, output_tokens=4)
    recorder.llamastack_call_started(started)
    recorder.llamastack_call_started(events()[0])
    assert recorder.running == {("inference", "p"): [2, 1]}
    recorder.llamastack_call_finished(ended)
    assert recorder.running == {("inference", "p"): [1, 0]}
    recorder.llamastack_call_finished(events(status="error", error_code="rate_limited")[1])
    assert recorder.running == {("inference", "p"): [0, 0]}
    key = ("inference", "chat_completion", "m", "p")
    assert recorder.calls == {
        (*key, "ok"): [1, 0, 1, 0, 0.2, 0.05, 3, 4],
        (*key, "rate_limited"): [1, 0, 0, 0, 0.2, 0, 0, 0],
    }


MOVED = "the recorder takes slices of a CallEvent, and the fields of CallEvent moved: correct its slices"


@pytest.mark.parametrize("error_code", ["error_code", None])
def test_the_slices_of_an_event_are_the_fields_that_they_are_meant_to_be(error_code: str | None) -> None:
    numbers = {"duration_s": 0.2, "first_piece_s": 0.1, "input_tokens": 1, "output_tokens": 2, "cached_tokens": 3}
    by_name = {name: name for name in CallEvent._fields}
    event = CallEvent(**{**by_name, **numbers, "call": None, "error_code": error_code})  # type: ignore[arg-type]
    recorder = Recorder(MetricsConfig())
    recorder.llamastack_call_started(event)
    assert [*recorder.running] == [("api", "provider_id")], MOVED
    recorder.llamastack_call_finished(event)
    assert [*recorder.calls] == [("api", "method", "identifier", "provider_id", error_code or "status")], MOVED


def test_further_series_are_counted_as_other_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder(MetricsConfig(max_series=10))
    with caplog.at_level(logging.WARNING, "llamastack.metrics"):
        for number in range(50):
            started, ended = events(f"m{number}")
            for _ in range(2):
                recorder.llamastack_call_started(started)
                recorder.llamastack_call_finished(ended)
            recorder.llamastack_request_finished(request(f"/{number}"))
    assert len(recorder.calls) == len(recorder.requests) == 10
    assert recorder.calls[("other",) * 5][-4] == pytest.approx(41 * 2 * 0.2)
    assert sum(sum(cell[:-1]) for cell in recorder.requests.values()) == 50
    assert recorder.running == {("inference", "p"): [0, 0]}
    assert [record.getMessage() for record in caplog.records] == [
        f"metrics.max_series: there are 10 label sets of {what}; further ones are counted as `other`"
        for what in ("provider calls", "requests")
    ]


def test_sums_of_workers_are_bounded_too() -> None:
    snapshots = [Snapshot({("GET", f"/{worker}/{n}", "200"): [1, 0.5] for n in range(8)}) for worker in range(3)]
    total = added_up(snapshots, most=10)
    assert len(total.requests) == 11
    assert total.requests["other", "other", "other"] == [14, 7]


def test_a_snapshot_is_read_as_it_was_written() -> None:
    written = Snapshot(
        {("GET", "/a", "200"): [1, 0, 0.5]},
        {("inference", "chat_completion", "m", "p", "ok"): [1, 2, 3]},
        {"process_cpu_seconds": {(): 1.5}},
        {"llamastack_workers": {(): 1}},
        ("w",),
    )
    assert Snapshot.from_json(written.to_json()) == written
    for broken in (b"", b"[]", b"{}", b'{"requests": 1}'):
        with pytest.raises(ValueError, match=r"^(is no snapshot|Expecting value)"):
            Snapshot.from_json(broken)
