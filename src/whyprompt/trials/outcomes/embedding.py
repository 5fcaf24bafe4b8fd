"""Similarity of a completion to the gold answer, by sentence embeddings (an optional extra)."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from whyprompt._words import first_line
from whyprompt.errors import StudyError

if TYPE_CHECKING:
    from collections.abc import Mapping

_DEFAULT = "sentence-transformers/all-MiniLM-L6-v2"


def check_embedding(options: Mapping[str, Any]) -> None:
    """Load the embedding model, so that a missing one is found before anything runs."""
    _encoder(str(options.get("model", _DEFAULT)))


@lru_cache(maxsize=1)
def _encoder(model: str) -> Any:  # noqa: ANN401 - sentence-transformers is an extra
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise StudyError(
            "outcome 'embedding_similarity' needs sentence-transformers, which is not installed",
            hint='pip install "whyprompt[embedding]"',
        ) from None
    try:
        return SentenceTransformer(model)
    except (OSError, ValueError) as error:
        raise StudyError(
            f"outcome 'embedding_similarity': the model {model!r} cannot be loaded: {first_line(error)}",
            hint="set options.model to a local folder or a name on the hub",
        ) from None


def similarity(completion: str, answer: str, options: Mapping[str, Any]) -> float:
    """Give the cosine similarity of two texts' embeddings, from -1 to 1.

    ``model`` is a folder or a name on the hub.
    """
    encoder = _encoder(str(options.get("model", _DEFAULT)))
    a, b = encoder.encode([completion, answer], normalize_embeddings=True, show_progress_bar=False)
    return float(a @ b)
