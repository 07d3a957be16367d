"""Whether the pieces of a memory bank fit into its embedding model. Text that the model does not read is not found."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llamastack.provider.errors import LlamaStackError

if TYPE_CHECKING:
    from llamastack.stack.resources.catalogue import ResourceCatalogue

_LIMITS = ("max_tokens", "context_length", "max_model_len")
"""Keys of a model's metadata with the number of tokens that it reads; the first that is there counts."""


def advice_on_chunks(models: ResourceCatalogue) -> Callable[[Any], str | None]:
    """What to say of a bank whose pieces are longer than its embedding model reads; None where they fit, or nothing is
    known of the model.
    """

    def advice(bank: Any) -> str | None:
        size, name = getattr(bank, "chunk_size_in_tokens", None), getattr(bank, "embedding_model", None)
        if not isinstance(size, int) or not isinstance(name, str):
            return None
        try:
            found = models.resolve(name)
        except LlamaStackError:
            return None
        limit = None if found is None else _tokens_of(*found)
        if limit is None or size <= limit:
            return None
        return (
            f"memory bank '{bank.identifier}' has pieces of {size} tokens, and its embedding model '{name}' reads "
            f"{limit}: the rest of each piece is not embedded; make chunk_size_in_tokens {limit} or less"
        )

    return advice


def _tokens_of(model: Any, instance: Any) -> int | None:
    # A registered model may lack what its provider says of it.
    listed = instance.served.get(model.identifier)
    for metadata in (getattr(listed, "metadata", None) or {}, getattr(model, "metadata", None) or {}):
        for key in _LIMITS:
            value = metadata.get(key)
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                return value
    return None
