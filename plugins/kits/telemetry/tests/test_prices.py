"""What a call costs by its tokens, and how prices are found and refused."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from llamastack import ConfigError, Stack
from llamastack.api.common import UserMessage
from llamastack.api.models import Model
from llamastack.stack.discovery import Discovery
from llamastack_telemetry.price_settings import PriceEntry, Prices
from llamastack_telemetry.prices import Cost, Price, PriceTable


def cost(tokens: tuple[object, ...], **prices: Any) -> str | None:
    input_tokens, output_tokens, cached = (*tokens, None, None)[:3]
    found = Price(Prices(**prices)).of(input_tokens, output_tokens, cached)
    return None if found is None else str(found)


@pytest.mark.parametrize(
    ("tokens", "prices", "expected"),
    [
        ((1000, 500), {"input": 0.15, "output": 0.6}, "0.00045 USD"),
        ((1, 0), {"input": 0.1, "output": 0.3}, "0.0000001 USD"),
        ((3, 3), {"input": 0.1, "output": 0.2}, "0.0000009 USD"),
        ((10**9, 1), {"input": 0.1, "output": 0.000001}, "100.000000000001 USD"),
        ((7, 0), {"input": 2.5}, "0.0000175 USD"),
        ((100, 0, 40), {"input": 1, "cached_input": 0.25, "output": 1}, "0.00007 USD"),
        ((100, 0, 40), {"input": 1, "output": 1}, "0.0001 USD"),
        ((100, 0, 400), {"input": 1, "cached_input": 0.5}, "0.00005 USD"),
        ((None, None), {"request": 0.04, "currency": "EUR"}, "0.04 EUR"),
        ((10, 10), {"request": 0.01, "input": 1, "output": 1}, "0.01002 USD"),
        ((0, 0), {"input": 1, "output": 1}, "0 USD"),
        ((10, 10), {"input": 0, "output": 0}, "0 USD"),
        ((None, 5), {"input": 1, "output": 1}, None),
        ((5, None), {"input": 1, "output": 1}, None),
        ((5, 5), {"input": 1}, None),
        ((True, 5), {"input": 1, "output": 1}, None),
        ((-1, 5), {"input": 1, "output": 1}, None),
    ],
)
def test_the_cost_of_tokens(tokens: tuple[object, ...], prices: dict[str, Any], expected: str | None) -> None:
    assert cost(tokens, **prices) == expected


def test_a_sum_has_no_noise() -> None:
    found = Price(Prices(input=0.1)).of(1, 0, None)
    assert found == Cost(Decimal("0.0000001"), "USD")
    assert sum([found.amount] * 3, Decimal(0)) == Decimal("0.0000003")


def table(*entries: Mapping[str, Any]) -> PriceTable:
    return PriceTable((PriceEntry(**entry), "USD") for entry in entries)


def test_the_nearest_name_counts() -> None:
    prices = table(
        {"model": "gpt-*", "input": 1},
        {"model": "gpt-4*", "input": 2},
        {"model": "gpt-4", "input": 3},
        {"model": "gpt-4", "provider_id": "b", "input": 4},
        {"model": "*", "provider_id": "c", "input": 5},
        {"model": "odd[1]?", "input": 6},
    )

    def of(provider_id: str, model: str) -> str | None:
        price = prices.find(provider_id, model)
        return None if price is None else str(price.of(1_000_000, 0, None))

    assert of("a", "gpt-4") == "3 USD"
    assert of("b", "gpt-4") == "4 USD"
    assert of("a", "gpt-4-mini") == "1 USD"
    assert of("c", "gpt-4-mini") == "5 USD"
    assert of("a", "odd[1]?") == "6 USD"
    assert of("a", "odd1x") is None
    assert of("a", "my-gpt-4") is None


RUN = """\
providers:
  inference:
  - {provider_id: sample, provider_type: remote::sample}
"""


def refused(folder: Path, run: str, prices: str | None = None) -> str:
    (folder / "run.yaml").write_text(RUN + run)
    if prices is not None:
        (folder / "prices.yaml").write_text(prices)
    with pytest.raises(ConfigError) as raised:
        Stack.from_config(folder / "run.yaml")
    return str(raised.value).replace(str(folder), ".")


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        ("prices:\n  models:\n  - {model: m, input: -1}\n", "./run.yaml:6: prices.models[0].input: "),
        ("prices:\n  models:\n  - {model: m}\n", "must have a price: `input` or `request`, or both"),
        ("prices:\n  models:\n  - {model: m, input: 1, outptu: 2}\n", "./run.yaml:6: prices.models[0].outptu: "),
        ("prices: {currency: dollars}\n", "./run.yaml:4: prices.currency: "),
        ("prices:\n  models:\n  - {model: m, input: .inf}\n", "./run.yaml:6: prices.models[0].input: "),
        (
            "prices:\n  models:\n  - {model: m, input: 1}\n  - {model: m, input: 2}\n",
            "./run.yaml:7: prices.models[1]: has the same model as entry 0",
        ),
        (
            "prices:\n  models:\n  - {model: m, provider_id: smaple, input: 1}\n",
            "prices.models[0].provider_id: there is no inference provider 'smaple'; allowed: sample",
        ),
        ("prices: {file: none.yaml}\n", "./run.yaml:4: prices.file: './none.yaml' cannot be read: No such file"),
        (
            "models:\n- identifier: a\n  metadata:\n    prices: {input: lots}\n",
            "./run.yaml:7: models[0].metadata.prices.input: ",
        ),
    ],
)
def test_bad_prices_are_refused_with_their_place(tmp_path: Path, run: str, expected: str) -> None:
    assert expected in refused(tmp_path, run)


@pytest.mark.parametrize(
    ("prices", "expected"),
    [
        ("models:\n- model: m\n  input: cheap\n", "./prices.yaml:3: models[0].input: "),
        ("- m\n", "./prices.yaml:1: must be a mapping with the keys `models` and"),
        ("models: [{model: m, input: 1}", "./prices.yaml:"),
        ("file: other.yaml\n", "./prices.yaml:1: file: "),
    ],
)
def test_bad_prices_of_a_file_are_refused_with_their_place(tmp_path: Path, prices: str, expected: str) -> None:
    assert expected in refused(tmp_path, "prices: {file: prices.yaml}\n", prices)


@pytest.mark.anyio
async def test_bad_prices_of_a_registration_are_logged_once(
    discovery: Discovery, script: Any, caplog: pytest.LogCaptureFixture
) -> None:
    script("a")
    providers = {"inference": [{"provider_id": "a", "provider_type": "scripted", "config": {"script": "a"}}]}
    caplog.set_level(logging.WARNING, "llamastack.telemetry")
    async with Stack.from_config({"providers": providers, "prices": {}}, discovery=discovery) as stack:
        await stack.models.register_model(Model(identifier="x", metadata={"prices": {"input": "lots"}}))
        for _ in range(2):
            await stack.inference.chat_completion(model="x", messages=[UserMessage(content="Hi")])
    [record] = [each for each in caplog.records if each.name == "llamastack.telemetry"]
    assert record.message.startswith("model 'x' of provider 'a': metadata.prices.input: ")
    assert "counts as a model without prices of its own" in record.message
