"""Whether the chunks of a memory bank fit into its embedding model. Text that the model does not read is not found."""

from __future__ import annotations

from collections.abc import Iterable

from llamastack.api.memory_banks import VectorMemoryBank
from llamastack.api.models import Models
from llamastack.provider import LlamaStackError

_LIMITS = ("max_tokens", "context_length", "max_model_len")
"""Keys of a model's metadata with the number of tokens that it reads; the first that is there counts."""
_MOST_TOLD = 3


async def chunk_size_advice(bank: VectorMemoryBank, models: Models) -> str | None:
    """The warning for a bank whose chunks are longer than its embedding model reads.

    None if they fit, or if nothing is known about the model.
    """
    try:
        model = await models.get_model(bank.embedding_model)
    except LlamaStackError:
        return None
    metadata = {} if model is None else model.metadata
    limit = next((n for key in _LIMITS if type(n := metadata.get(key)) is int and n > 0), None)
    if limit is None or bank.chunk_size_in_tokens <= limit:
        return None
    return (
        f"memory bank '{bank.identifier}' has pieces of {bank.chunk_size_in_tokens} tokens, and its embedding model "
        f"'{bank.embedding_model}' reads {limit}: the rest of each piece is not embedded; make chunk_size_in_tokens "
        f"{limit} or less"
    )


def joined_advice(advice: Iterable[str | None]) -> str | None:
    """The advice on several banks as the `note` of their provider, or None; the first three of them."""
    return "; ".join([each for each in advice if each is not None][:_MOST_TOLD]) or None
