"""What is known about architectures: refusals, and how exact is exact enough.

Everything here is a table. Whether a model really calls the attention function, and
whether its logits stay the same under it, is checked at run time and not looked up.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch

from whyprompt.errors import MediationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

NEVER_CALLS: Mapping[str, str] = MappingProxyType(
    dict.fromkeys(
        ("bloom", "falcon", "gpt_neo", "mpt"),
        "computes attention in its own code and never calls a registered attention function",
    )
)
"""Architectures that ignore a registered attention function without saying so.

gptj and codegen did so too before transformers 5.24. `refuse_known` reads from the code at hand
which side of that change it is on.
"""

_INTERFACE = "ALL_ATTENTION_FUNCTIONS"

WHOLE_ROWS = (
    "every patched row is run over its whole prompt, since the answer positions alone do not give this "
    "model's answer (a state-space, linear-attention or convolution layer hands on more than keys and "
    "values): exact, at as many times the work as the prompt has tokens for each that is set"
)
"""What a reader has to know of a model whose rows carry their whole prompts."""

_HINT = (
    "use a model whose attention goes through transformers.AttentionInterface "
    "(gpt2, llama, qwen, gemma, gpt_neox, opt and most others)"
)


def refuse(model_type: str, reason: str, *, hint: str = _HINT) -> MediationError:
    """Error that names the architecture and the reason.

    Examples
    --------
    >>> print(refuse("mpt", "never calls it").message)
    architecture 'mpt' cannot be analysed head by head: never calls it
    """
    return MediationError(
        f"architecture {model_type!r} cannot be analysed head by head: {reason}",
        hint=hint,
    )


def refuse_known(model: torch.nn.Module, model_type: str) -> None:
    """Raise for an architecture that can be told never to call a registered attention function.

    It is in `NEVER_CALLS`, or transformers' own and no file of its code mentions the table of attention
    functions. Nothing of the model is run.
    """
    if model_type in NEVER_CALLS:
        raise refuse(model_type, NEVER_CALLS[model_type])
    files = {type(m).__module__ for m in model.modules()}
    own = [sys.modules[name] for name in files if name.startswith("transformers.models.")]
    # Code from elsewhere may import the table under another name; a run tells of that.
    if own and not any(hasattr(module, _INTERFACE) for module in own):
        raise refuse(model_type, f"its code never looks into transformers' {_INTERFACE}")


@contextmanager
def refusing(model_type: str, doing: str) -> Iterator[None]:
    """Refuse by name an architecture whose own code breaks inside the block; lack of memory stays what it is.

    >>> try:
    ...     with refusing("odd", "its rows were batched"):
    ...         [][0]
    ... except MediationError as error:
    ...     print(error.message)  # doctest: +NORMALIZE_WHITESPACE
    architecture 'odd' cannot be analysed head by head: when its rows were batched, its code raised
    IndexError: list index out of range
    """
    try:
        yield
    except (MediationError, torch.OutOfMemoryError):
        raise
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as e:
        text = str(e).strip().splitlines() or ["no message"]
        raise refuse(model_type, f"when {doing}, its code raised {type(e).__name__}: {text[0]}") from e


def tolerance(eps: float) -> float:
    """Largest difference of logits, relative to the largest logit, that counts as the same.

    Of the model's machine epsilon: 1e-5 for float32 and better, a few epsilons for half precision.

    >>> tolerance(1.2e-7)
    1e-05
    """
    return max(1e-5, 8 * eps)
