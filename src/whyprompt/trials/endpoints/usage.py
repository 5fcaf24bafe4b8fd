"""The fewest tokens that a reply can be, whatever it says of itself: no budget rests on a server's word."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from whyprompt.trials.endpoints.wire import Answer, Request

# Characters of a token in the mean of a text. Of source code and prose no 400 characters had more than 6.5 a
# token by the vocabularies cl100k and o200k, of a list of the longest English words 12.
_CHARACTERS = 16
# White space and rules are made of few tokens, however long.
_RUN = re.compile(r"(.)\1{3,}", re.DOTALL)
# A text that is tokenised again may come out otherwise, and a server may count its special tokens or not.
_SLACK, _SHARE = 1, 0.8


def least_of(text: str) -> int:
    """Give the fewest tokens that a text can be by any tokenizer that is known.

    >>> least_of(""), least_of("12"), least_of("-" * 800), least_of("What is the sum of 7 and 5?")
    (0, 1, 1, 2)
    """
    return -(-len(_RUN.sub(r"\1\1\1", text)) // _CHARACTERS)


def least_tokens(request: Request, answer: Answer) -> tuple[int, int]:
    """Give the fewest tokens that a request's prompt and the completion in its reply can have."""
    body, prompt = request.body, request.body.get("prompt")
    if isinstance(prompt, list):
        of_prompt = len(prompt)
    else:
        texts = [prompt] if prompt is not None else [m.get("content") for m in body.get("messages", ())]
        of_prompt = sum(least_of(text) for text in texts if isinstance(text, str))
    if body.get("echo"):
        # What comes back begins with the prompt.
        return of_prompt, 0
    return of_prompt, max(len(answer.tokens), least_of(answer.text))


def too_few(said: int, least: int) -> bool:
    """Say whether a count is below another one by more than rounding."""
    return said < _SHARE * least - _SLACK
