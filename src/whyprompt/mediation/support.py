"""What is known about architectures: fallbacks, refusals, and how exact is exact enough.

Everything here is a table. Whether a model really calls the attention function, and
whether its logits stay the same under it, is checked at run time and not looked up.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from whyprompt.errors import MediationError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ENTER_AT_BOTTOM", "NEVER_CALLS", "refuse", "refuse_known", "tolerance"]

ENTER_AT_BOTTOM: Mapping[str, str] = MappingProxyType(
    {"gpt_bigcode": "its forward fixes the batch size at the embedding, so rows cannot join at a layer"}
)
"""Architectures whose rows all enter at the first layer: same numbers, about twice the work."""

NEVER_CALLS: Mapping[str, str] = MappingProxyType(
    dict.fromkeys(
        ("bloom", "codegen", "falcon", "gpt_neo", "gptj", "mpt"),
        "computes attention in its own code and never calls a registered attention function",
    )
)
"""Architectures that ignore a registered attention function without saying so."""


def refuse(model_type: str, reason: str) -> MediationError:
    """Error that names the architecture and the reason.

    Parameters
    ----------
    model_type : str
        ``model.config.model_type``.
    reason : str
        What it does or does not do.

    Returns
    -------
    MediationError

    Examples
    --------
    >>> print(refuse("gptj", "never calls it").message)
    architecture 'gptj' cannot be analysed head by head: never calls it
    """
    return MediationError(
        f"architecture {model_type!r} cannot be analysed head by head: {reason}",
        hint="use a model whose attention goes through transformers.AttentionInterface "
        "(gpt2, llama, qwen, gemma, gpt_neox, opt and most others)",
    )


def refuse_known(model_type: str) -> None:
    """Raise for an architecture in `NEVER_CALLS`.

    Parameters
    ----------
    model_type : str
        ``model.config.model_type``.

    Raises
    ------
    MediationError
        If the architecture is known never to call a registered attention function.

    Examples
    --------
    >>> refuse_known("llama")
    """
    if model_type in NEVER_CALLS:
        raise refuse(model_type, NEVER_CALLS[model_type])


def tolerance(eps: float) -> float:
    """Largest difference of logits, relative to the largest logit, that counts as the same.

    Parameters
    ----------
    eps : float
        Machine epsilon of the model's dtype.

    Returns
    -------
    float
        1e-5 for float32 and better; a few epsilons for half precision.

    Examples
    --------
    >>> tolerance(1.2e-7)
    1e-05
    """
    return max(1e-5, 8 * eps)
