"""The provider: it makes embeddings outside of the event loop, in small batches."""

from __future__ import annotations

import logging

import anyio
import anyio.to_thread

from llamastack.api.common import ImageMedia, InterleavedTextMedia, text_of
from llamastack.api.inference import EmbeddingsResponse, TokenUsage
from llamastack.api.models import Model
from llamastack.provider import (
    ContextLengthExceededError,
    Deps,
    InvalidRequestError,
    ObjectNotFoundError,
    ProviderUnavailableError,
    UnsupportedModelError,
)
from llamastack_provider_sentence_embeddings.config import SentenceEmbeddingsConfig
from llamastack_provider_sentence_embeddings.model import DIMENSION, IDENTIFIER, MiniLM

logger = logging.getLogger(__name__)

_BATCHES_PER_WINDOW = 64


class SentenceEmbeddings:
    """The inference provider. It serves only embeddings of `all-MiniLM-L6-v2`."""

    def __init__(self, config: SentenceEmbeddingsConfig, provider_id: str) -> None:
        self._config = config
        self._provider_id = provider_id
        self._model: MiniLM | None = None
        # Requests take turns batch by batch: two batches at once would compete for the same cores.
        self._turn = anyio.CapacityLimiter(1)

    async def initialize(self) -> None:
        """Load the model; this takes about a second. Raises RuntimeError for damaged weights."""
        if self._model is None:
            config = self._config
            self._model = await anyio.to_thread.run_sync(
                lambda: MiniLM(max_tokens=config.max_tokens, threads=config.threads)
            )

    async def shutdown(self) -> None:
        """Release the model. A running batch still completes."""
        self._model = None

    async def health(self) -> None:
        """Raise ProviderUnavailableError while the model is not loaded."""
        self._loaded()

    def _loaded(self) -> MiniLM:
        if self._model is None:
            raise ProviderUnavailableError(f"{IDENTIFIER} is not loaded", provider_id=self._provider_id)
        return self._model

    async def list_models(self) -> list[Model]:
        """The one model."""
        return [
            Model(
                identifier=IDENTIFIER,
                metadata={"embedding_dimension": DIMENSION, "max_tokens": self._config.max_tokens},
            )
        ]

    async def register_model(self, model: Model) -> None:
        """Accept the only model, which is always served.

        Raises UnsupportedModelError for any other model.
        """
        if model.identifier != IDENTIFIER:
            raise UnsupportedModelError(model.identifier, available=[IDENTIFIER], provider_id=self._provider_id)

    async def embeddings(self, model: str, contents: list[InterleavedTextMedia]) -> EmbeddingsResponse:
        """One vector of 384 numbers and length 1 for each content. The parts of a content are joined with line breaks.

        A text of more than `max_tokens` tokens is truncated, or refused if the config says so.

        Raises ObjectNotFoundError for another model, InvalidRequestError for an image (`param` is `contents[i]`),
        ContextLengthExceededError if a text is too long.
        """
        if model != IDENTIFIER:
            raise ObjectNotFoundError("model", model, available=[IDENTIFIER], param="model")
        texts = [self._text(content, place) for place, content in enumerate(contents)]
        vectors: list[list[float]] = []
        tokens = 0
        # A window limits the memory, and the time that a cancelled request continues to tokenize.
        window = self._config.batch_size * _BATCHES_PER_WINDOW
        for first in range(0, len(texts), window):
            made, read = await self._embed(texts[first : first + window], first)
            vectors += made
            tokens += read
        return EmbeddingsResponse(embeddings=vectors, usage=TokenUsage(prompt_tokens=tokens))

    def _text(self, content: InterleavedTextMedia, place: int) -> str:
        parts = content if isinstance(content, list) else [content]
        if any(isinstance(part, ImageMedia) for part in parts):
            raise InvalidRequestError(
                f"contents[{place}]: {IDENTIFIER} embeds text, not images",
                param=f"contents[{place}]",
                provider_id=self._provider_id,
            )
        text = text_of(content)
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidRequestError(
                f"contents[{place}] is not valid Unicode", param=f"contents[{place}]", provider_id=self._provider_id
            ) from None
        return text

    async def _embed(self, texts: list[str], first: int) -> tuple[list[list[float]], int]:
        """The vectors, and how many tokens were read for them."""
        model = self._loaded()
        encodings = await anyio.to_thread.run_sync(model.tokenize, texts, limiter=self._turn)
        cut = [place for place, encoding in enumerate(encodings) if encoding.overflowing]
        if cut and self._config.too_long == "refuse":
            raise ContextLengthExceededError(
                f"contents[{first + cut[0]}] has more than {self._config.max_tokens} tokens",
                param=f"contents[{first + cut[0]}]",
                provider_id=self._provider_id,
            )
        if cut:
            logger.info("%d of %d texts were truncated to %d tokens", len(cut), len(texts), self._config.max_tokens)
        # Texts of similar length in a batch need little padding.
        order = sorted(range(len(texts)), key=lambda place: len(encodings[place].ids))
        vectors: list[list[float]] = [[]] * len(texts)
        for start in range(0, len(order), self._config.batch_size):
            places = order[start : start + self._config.batch_size]
            batch = [encodings[place] for place in places]
            made = await anyio.to_thread.run_sync(model.embed, batch, limiter=self._turn)
            for place, vector in zip(places, made, strict=True):
                vectors[place] = vector
        return vectors, sum(len(encoding.ids) for encoding in encodings)


async def get_provider_impl(config: SentenceEmbeddingsConfig, deps: Deps) -> SentenceEmbeddings:
    """Make the provider; `initialize` loads the model."""
    return SentenceEmbeddings(config, deps.provider_id)
