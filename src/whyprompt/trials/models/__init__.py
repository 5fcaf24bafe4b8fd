"""White-box language models: loading, scoring, completing."""

from __future__ import annotations

from whyprompt.trials.models.generation import Completion, CompletionRequest, complete
from whyprompt.trials.models.load import load_codec, load_model
from whyprompt.trials.models.local import Encoded, LocalModel, PromptCodec
from whyprompt.trials.models.locate import ModelFiles, locate_model
from whyprompt.trials.models.scoring import (
    RootCache,
    ScoreRequest,
    TokenScores,
    plan_scoring,
    score,
    score_pack,
)

__all__ = [
    "Completion",
    "CompletionRequest",
    "Encoded",
    "LocalModel",
    "ModelFiles",
    "PromptCodec",
    "RootCache",
    "ScoreRequest",
    "TokenScores",
    "complete",
    "load_codec",
    "load_model",
    "locate_model",
    "plan_scoring",
    "score",
    "score_pack",
]
