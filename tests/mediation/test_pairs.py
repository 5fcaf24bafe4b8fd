import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from whyprompt import pair_from_text
from whyprompt.errors import MediationError
from whyprompt.mediation import PromptPair, Sweep

FLOATS = st.floats(-50, 0)


@given(
    hnp.arrays(float, 3, elements=FLOATS),
    hnp.arrays(float, 3, elements=FLOATS),
    hnp.arrays(float, (3, 2, 4), elements=FLOATS),
    hnp.arrays(float, (3, 2, 4), elements=FLOATS),
)
def test_effects_add_up(y00, y11, y10, y01):
    e = Sweep(y00=y00, y11=y11, y10=y10, y01=y01)
    te = np.broadcast_to(e.te[:, None, None], y10.shape)
    np.testing.assert_allclose(e.nie + e.nde, te, atol=1e-12)
    np.testing.assert_allclose(e.pure_nie + e.total_nde, te, atol=1e-12)
    # Turning the prompts around turns the signs and swaps pure for total.
    r = Sweep(y00=y11, y11=y00, y10=y01, y01=y10)
    np.testing.assert_allclose(r.nie, -e.pure_nie)
    np.testing.assert_allclose(r.nde, -e.total_nde)


def test_effects_by_hand():
    e = Sweep(y00=[-5.0], y11=[-1.0], y10=[[-4.0]], y01=[[-2.5]])
    assert (e.te[0], e.nie[0, 0], e.nde[0, 0], e.pure_nie[0, 0], e.total_nde[0, 0]) == (4, 3, 1, 2.5, 1.5)


def test_effects_refuse_what_is_not_finite_or_does_not_fit():
    with pytest.raises(MediationError, match="y10 holds 1 values that are not finite"):
        _ = Sweep(y00=[-5.0], y11=[-1.0], y10=[[np.nan]]).nie
    with pytest.raises(MediationError, match="y11 has 2 items but y00 has 1"):
        _ = Sweep(y00=[-5.0], y11=[-1.0, -2.0]).te
    with pytest.raises(MediationError, match="y11 must have items"):
        _ = Sweep(y00=-5.0, y11=-1.0).te


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"ids0": []}, "ids0 is empty"),
        ({"answer_ids": []}, "answer_ids is empty"),
        ({"foil_ids": []}, "foil_ids is empty"),
        ({"ids1": [3, -1, 7]}, "ids1 holds a negative token id"),
        ({"ids1": [3, 8]}, r"do not end in the same cue: the last 1 tokens are \[7\] and \[8\]"),
        ({"cue_tokens": 2}, r"the last 2 tokens are \[3, 7\] and \[4, 7\]"),
        ({"cue_tokens": 3}, "cue_tokens is 3, but the prompts have 2 and 3 tokens"),
        ({"segments1": {"q": ((1, 4),)}}, r"segments1\['q'\] has the span \(1, 4\)"),
        ({"segments0": {"q": ((1, 1),)}}, r"segments0\['q'\]"),
    ],
)
def test_a_pair_that_is_not_one_is_refused_by_name(changes, match):
    good = {"item_id": "i7", "ids0": [3, 7], "ids1": [3, 4, 7], "answer_ids": [5]}
    PromptPair(**good)
    with pytest.raises(MediationError, match=match) as error:
        PromptPair(**good | changes)
    assert "'i7'" in str(error.value)


@pytest.fixture(scope="module")
def tokenizer():
    """A tiny byte-pair tokenizer that merges ``:4`` and ``an``."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocab = {c: i for i, c in enumerate(" abcnqrs:0123456789")}
    for extra in (":4", "an", " 4"):
        vocab[extra] = len(vocab)
    raw = Tokenizer(models.BPE(vocab=vocab, merges=[(":", "4"), ("a", "n"), (" ", "4")]))
    raw.pre_tokenizer = pre_tokenizers.Split("\0", "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=raw)


def test_pair_from_named_parts(tokenizer):
    pair = pair_from_text(
        tokenizer,
        item_id="x",
        prompt0=[("question", "qa"), ("cue", "ns:")],
        prompt1=[("question", "qa"), ("reasoning", "bcb"), ("cue", "ns:")],
        answer=" 4",
    )
    assert pair.answer_ids == (tokenizer.get_vocab()[" 4"],)
    # "an" straddles the question and the cue; it belongs to the part it begins in.
    assert dict(pair.segments0) == {"question": ((0, 2),), "cue": ((2, 4),)}
    assert dict(pair.segments1) == {"question": ((0, 2),), "reasoning": ((2, 5),), "cue": ((5, 8),)}


def test_parts_of_the_same_name_are_several_spans(tokenizer):
    pair = pair_from_text(
        tokenizer,
        item_id="x",
        prompt0="q:",
        prompt1=[("number", "1"), ("", "s"), ("number", "2"), ("cue", ":")],
        answer=" 4",
    )
    assert pair.segments1["number"] == ((0, 1), (2, 3))
    assert dict(pair.segments0) == {}


def test_an_answer_that_merges_with_the_cue_is_refused(tokenizer):
    with pytest.raises(MediationError, match="'x': the answer '4' changes the tokens of the prompt"):
        pair_from_text(tokenizer, item_id="x", prompt0="q:", prompt1="qa:", answer="4")
    with pytest.raises(MediationError, match="'x': the foil '4'"):
        pair_from_text(tokenizer, item_id="x", prompt0="q:", prompt1="qa:", answer=" 4", foil="4")
