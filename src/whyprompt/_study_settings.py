"""The settings that a study is made of: arms, model, outcomes, and how its two levels are analysed."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from whyprompt._study_items import Strict
from whyprompt.errors import MediationError

Problem = tuple[tuple["str | int", ...], str]
"""A path of keys, and what is wrong there."""


# -------------------------------------------------------------------------------------------- arms
class TemperatureRange(Strict):
    """A continuous treatment: each trial draws its temperature uniformly from ``[low, high]``."""

    low: Annotated[float, Field(ge=0)]
    high: Annotated[float, Field(gt=0, le=5)]

    @model_validator(mode="after")
    def _ordered(self) -> TemperatureRange:
        if self.low >= self.high:
            raise ValueError("'low' must be below 'high'")
        return self


_Temperature = Annotated[float, Field(ge=0, le=5)]


class _Arm(Strict):
    system: str | None = Field(default=None, description="System prompt. Default: the chat template's own.")
    instruction: str | None = Field(default=None, description="Text put before the question.")
    cue: str | None = Field(default=None, description="Text after which the answer is scored.")
    chat: Literal["auto", "always", "never"] = Field(
        default="auto", description="Whether the tokenizer's chat template wraps the prompt."
    )
    temperature: Annotated[
        Annotated[_Temperature, Tag("(number)")] | Annotated[TemperatureRange, Tag("(range)")],
        # Judged as what it is written as: a message then speaks of that alone.
        Discriminator(lambda v: "(range)" if isinstance(v, dict | TemperatureRange) else "(number)"),
    ] = Field(default=0.0, description="Sampling temperature of completions; 0 is greedy.")


class DirectArm(_Arm):
    """The question, then the cue."""

    kind: Literal["direct"]


class FewShotArm(_Arm):
    """Worked examples before the question, from items that are not in the study."""

    kind: Literal["few_shot"]
    shots: Annotated[int, Field(ge=1)] = 3
    draw: Literal["fixed", "per_rep", "per_item"] = Field(
        default="fixed",
        description="The same shots always; anew for each repetition; or anew for each item and repetition.",
    )
    with_solution: bool = Field(default=False, description="Show each example's worked solution.")


class ChainOfThoughtArm(_Arm):
    """Reasoning before the answer."""

    kind: Literal["chain_of_thought"]
    reasoning: Literal["generated", "asked_only", "worked", "cut", "other"] = Field(
        default="generated",
        description=(
            "generated: the model writes its own first, then its answer; asked_only: it is asked for, and"
            " the answer scored at once, with nothing written before it; worked: the item's own solution;"
            " cut: the same, cut before the answer first appears; other: another item's solution."
        ),
    )
    ask: str = "Let's think step by step."


class FormatArm(_Arm):
    """An instruction format."""

    kind: Literal["format"]
    format: Literal["plain", "role", "question_answer", "json"]


class TemplateArm(_Arm):
    """A template of the user's own (jinja2, sandboxed)."""

    kind: Literal["template"]
    template: str
    shots: Annotated[int, Field(ge=0)] = 0


Arm = Annotated[
    DirectArm | FewShotArm | ChainOfThoughtArm | FormatArm | TemplateArm, Field(discriminator="kind")
]


# --------------------------------------------------------------------------------- model and sampling
class ModelSettings(Strict):
    """Which model, and how it runs."""

    name: str = Field(
        default="embedded",
        description="'embedded', a local folder, a .gguf file, or a name on the hub. Code that a model "
        "brings along is never run.",
    )
    revision: str | None = None
    device: str = "auto"
    device_map: Literal["auto", "balanced", "sequential"] | None = Field(
        default=None,
        description="How a model that one GPU cannot hold is spread over several, by transformers.",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16", "float64"] = Field(
        default="auto",
        description="auto is float32, also for a checkpoint in half precision: its weights then take twice "
        "the memory of their files. On a GPU it is bfloat16 for a checkpoint in bfloat16. mediate computes "
        "in float32 whatever the weights' type, and may keep a checkpoint's bfloat16.",
    )
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None


class GenerationSettings(Strict):
    """How completions are made, for the outcomes that read one."""

    max_new_tokens: Annotated[int, Field(ge=1)] = 32
    max_reasoning_tokens: Annotated[int, Field(ge=1)] = 160
    stop: list[Annotated[str, Field(min_length=1)]] = Field(default_factory=lambda: ["\n"])


# ------------------------------------------------------------------------------------------ analysis
Method = Literal[
    "naive",
    "nearest",
    "optimal",
    "full",
    "kernel",
    "subclass",
    "cem",
    "ipw",
    "overlap",
    "entropy",
    "aipw",
]


class Contrast(Strict):
    """Two arms, compared as ``treated`` minus ``control``."""

    treated: str
    control: str


_Options = dict[Method, dict[str, Any] | None]


_WRITTEN = {
    "switch": {"type": "boolean"},
    "count": {"type": "integer"},
    "number": {"type": "number"},
    "number or text": {"type": ["number", "string"]},
    "columns": {"type": "array", "items": {"type": "string"}},
    "sizes": {"type": "object"},
    "dates": {"type": ["string", "number", "object"]},
    "text": {"type": "string"},
}


def _one_of(options: dict[str, dict[str, str]], what: str) -> dict[str, Any]:
    """Give the schema of one name with its options, each of a kind that text can be written as."""
    return {
        "type": "object",
        "description": what,
        "properties": {
            name: {
                "type": ["object", "null"],
                "properties": {key: _WRITTEN[kind] for key, kind in own.items() if kind in _WRITTEN},
                "additionalProperties": False,
            }
            for name, own in options.items()
        },
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 1,
    }


class _MethodOptions:
    """Adds the options of each method to the schema of a study."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: Any) -> dict[str, Any]:  # noqa: ANN401 - pydantic's protocol
        from whyprompt.effects.methods.make import METHODS, option_kinds

        return _one_of({name: option_kinds(name) for name in METHODS}, "One method with its options.")


class _DesignOptions:
    """Adds the options of the designs that logs have to the schema of a study."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: Any) -> dict[str, Any]:  # noqa: ANN401 - pydantic's protocol
        from whyprompt.effects.designs.make import DESIGNS, study_options

        return _one_of({name: study_options(name) for name in DESIGNS}, "One design with its options.")


LogDesign = Literal["instrument", "front_door", "rollout"]
DesignSetting = Annotated[
    Annotated[Literal["paired", "randomized", "observational", "front_door"], Tag("(name)")]
    | Annotated[dict[LogDesign, dict[str, Any] | None], _DesignOptions, Tag("(options)")],
    Discriminator(lambda v: "(options)" if isinstance(v, dict) else "(name)"),
]
_MethodSetting = Annotated[
    Annotated[Method, Tag("(name)")] | Annotated[_Options, _MethodOptions, Tag("(options)")],
    # Judged as what it is written as: a message then speaks of that alone.
    Discriminator(lambda v: "(options)" if isinstance(v, dict) else "(name)"),
]


class _Estimator(Strict):
    """What an estimate and an audit share: a method, with its options where it has some."""

    @property
    def method_name(self) -> str:
        """The method without its options."""
        method: str | dict[str, Any] = self.method  # type: ignore[attr-defined]  # each kind has one
        return method if isinstance(method, str) else next(iter(method), "")

    @property
    def method_options(self) -> dict[str, Any]:
        """Its options."""
        method: str | dict[str, Any] = self.method  # type: ignore[attr-defined]  # each kind has one
        return {} if isinstance(method, str) else dict(method.get(self.method_name) or {})


class AuditSettings(_Estimator):
    """A confounded assignment drawn from a study with both arms, held against the paired truth."""

    assignment: dict[str, float] = Field(
        description="Log-odds of the treated arm for each standard deviation of an item covariate."
    )
    intercept: float = 0.0
    method: _MethodSetting = Field(
        default="aipw", description="By name, or with its options: {nearest: {caliper: 0.2}}."
    )
    estimand: Literal["ate", "att", "atc"] = "att"
    draws: Annotated[int, Field(ge=0, le=100_000)] = 200


class EffectSettings(_Estimator):
    """The external level: which contrast, on which outcome, by which estimator."""

    outcome: str = "log_prob"
    contrast: Contrast | None = None
    estimand: Literal["ate", "att", "atc"] = "ate"
    method: _MethodSetting = Field(
        default="aipw",
        description="Estimator where the design is observational: by name, or with its options:"
        " {nearest: {caliper: 0.2}}.",
    )
    by: str | None = "task_type"
    level: Annotated[float, Field(gt=0, lt=1)] = 0.95
    confounders: list[str] = Field(default_factory=list)
    propensity: str | None = Field(
        default=None, description="Of an observational log: column with the known chances of the treated arm."
    )
    better: Literal["higher", "lower"] | None = Field(
        default=None,
        description="Which is better of the outcome. Default: what is known of exact_match and its like.",
    )
    margin: Annotated[float, Field(gt=0)] | None = Field(
        default=None,
        description="How much worse is still no worse, in units of the outcome: 0.02 is 2 points of 0/1.",
    )
    audit: AuditSettings | None = None


class MediationSettings(Strict):
    """The internal level: which contrast, on how many items, through which mediator."""

    contrast: Contrast | None = None
    mediator: Literal["head_output"] = "head_output"
    outcome: Literal["log_prob", "prob", "margin", "first_token"] = Field(
        default="log_prob",
        description=(
            "What effects are on: the gold answer's log-probability; its probability; its log odds over the "
            "item's first wrong choice; or whether its first token is the model's first choice."
        ),
    )
    sites: list[str] = Field(
        default_factory=list,
        description=(
            "What to set beside the heads: attn, mlp, resid (one a layer), single ones (mlp 14), neurons "
            "(neuron 14 for all of a layer's MLP, neuron 14.123 for one). One family of tests with the heads."
        ),
    )
    tokens: Literal["answer", "suffix"] = Field(
        default="answer",
        description=(
            "Where to set them: at the answer positions, or at every token that both prompts end with too."
        ),
    )
    tasks: list[str] | None = Field(
        default=None, min_length=1, description="Task families to sweep; all by default."
    )
    items_per_task: Annotated[int, Field(ge=1)] = 8
    level: Annotated[float, Field(gt=0, lt=1)] = 0.95
    placebo: str | None = Field(default=None, description="An arm whose sweep is the noise floor.")
    share: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.8, description="Share of the total effect that the smallest set of heads is to carry."
    )
    max_heads: Annotated[int, Field(ge=1)] = Field(default=10, description="The most heads in that set.")
    set_of: list[str] = Field(
        default_factory=lambda: ["head"],
        min_length=1,
        description=(
            "What that set may be made of: head, and of `sites` attn, mlp and neurons, ranked together. "
            "Residual streams may not join: one alone carries whatever the layers below it do."
        ),
    )
    segment: str | None = Field(
        default=None,
        description=(
            "Segment of the prompt, attention to which is the measured mediator of the statistical side. "
            "Default: what the treated arm's prompt has and the control's has not (shots, reasoning), else "
            "the question."
        ),
    )
    candidates: Annotated[int, Field(ge=1)] = Field(
        default=16, description="Heads of the ranking among which the search chooses."
    )
    text: list[Literal["chain", "length", "format"]] = Field(
        default_factory=list,
        description=(
            "What of the chain before the answer is set to that of the other arm, and the effect's outcome"
            " scored anew: chain, all of it; length, cut or padded with dots; format, its steps written as"
            " lines, a list, JSON or one line."
        ),
    )
    contrasts: list[Contrast] = Field(
        default_factory=list, description="Further contrasts to sweep, reported beside the first."
    )
    relate: Annotated[int, Field(ge=2)] | None = Field(
        default=None,
        description="Take so many heads, those with the largest effects, apart: the paths between them, the "
        "interaction of each two, and what all have together.",
    )
    paths: Literal["path", "direct_path"] = Field(
        default="path",
        description="Whether what lies between two heads passes on what the first one does (path), or all of "
        "it is held (direct_path).",
    )
    senders: Literal["chosen", "all"] = Field(
        default="chosen",
        description="With `relate`: whether paths begin in those heads, or in every head of a layer below.",
    )
    along: list[list[str]] = Field(
        default_factory=list,
        description="With `relate`: paths, each a list of heads from the lowest layer up, along which the "
        "total effect is taken apart: [[head 3.1, head 7.0], [head 5.2]].",
    )
    flips: Annotated[int, Field(ge=1)] | list[str] | None = Field(
        default=None,
        description="Whether what the model writes flips under a patch: of so many heads, those with the "
        "largest effects, or of the sites named, each alone and all together. Scored by the study's first "
        "outcome that reads what is written, exact_match among them.",
    )
    directions: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="Whether the effect of so many heads, those with the largest effects, is one direction "
        "each, learned on some items and tried on the others.",
    )

    @field_validator("flips")
    @classmethod
    def _name_flips(cls, value: int | list[str] | None) -> int | list[str] | None:
        from whyprompt.mediation.engine.sites import as_sites

        if not isinstance(value, list):
            return value
        try:
            sites = as_sites(value)
        except MediationError as error:
            raise ValueError(f"{error.message}: {error.hint}") from None
        if not sites or len(set(sites)) < len(sites):
            raise ValueError("name at least one site, and each once")
        return value

    @field_validator("along")
    @classmethod
    def _name_paths(cls, value: list[list[str]]) -> list[list[str]]:
        from whyprompt.mediation.paths import check_named_paths

        try:
            check_named_paths(value, "along")
        except MediationError as error:
            raise ValueError(f"{error.message}: {error.hint}" if error.hint else error.message) from None
        return value

    @model_validator(mode="after")
    def _of_relate(self) -> MediationSettings:
        given = {"senders": self.senders != "chosen", "along": bool(self.along)}
        named = [name for name, is_given in given.items() if is_given]
        if named and self.relate is None:
            raise ValueError(f"{' and '.join(named)} takes heads apart that relate chooses: add relate: 4")
        return self

    @model_validator(mode="after")
    def _name_set(self) -> MediationSettings:
        from whyprompt.mediation.engine.sites import check_set

        try:
            check_set(self.set_of, self.sites)
        except MediationError as error:
            raise ValueError(f"set_of: {error.message}: {error.hint}") from None
        return self

    @field_validator("sites")
    @classmethod
    def _name_sites(cls, value: list[str]) -> list[str]:
        from whyprompt.mediation.engine.sites import check_beside

        try:
            check_beside(value)
        except MediationError as error:
            raise ValueError(f"{error.message}: {error.hint}") from None
        return value


_Seed = Annotated[int, Field(ge=0, lt=2**63)]


class Seeds(Strict):
    """Every source of chance, seeded apart."""

    items: _Seed = 0
    shots: _Seed = 0
    sampling: _Seed = 0
    analysis: _Seed = 0
