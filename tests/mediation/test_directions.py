"""Whether what a head carries is one direction: against a plain loop of hooks, and planted heads."""

import numpy as np
import planted
import pytest
import tiny
import torch
from planted import BOS, CUE, MARK
from test_engine import ATOL, pair
from test_planted import pairs

from whyprompt import head_sweep
from whyprompt.errors import MediationError
from whyprompt.mediation import PromptPair, head_directions
from whyprompt.mediation.directions import judge_directions, try_directions


def one_answer(n=8, token=5):
    """Prompts whose worked part has the same token in every item: the copying head writes one vector."""
    return [
        PromptPair(
            item_id=f"i{i}",
            ids0=[BOS, 3 + i % 5, 3 + i % 4, CUE],
            ids1=[BOS, 3 + i % 5, 3 + i % 4, MARK, token, CUE],
            answer_ids=[token],
        )
        for i in range(n)
    ]


def shares(found, head="head 1.2"):
    return {
        (how, way): found.part(head, by=f"{how} share, {way}")
        for how in ("component", "shift")
        for way in ("NIE", "pure NIE")
    }


def test_a_head_that_writes_one_direction_is_found_to():
    found = head_directions(planted.build({2: 1.0}), one_answer(), heads=[(1, 2)])
    for share in shares(found).values():
        np.testing.assert_allclose([share.estimate, *share.ends], 1, atol=1e-9)
    assert found.part("head 1.2", by="own, NIE")["cosine"] == pytest.approx(1)
    assert "carries 100% (95% interval 100% to 100%)" in found.sentence
    assert "on the answer's log-probability (nats)" in found.sentence
    assert len(found["directions"]["head 1.2"]) == planted.HEAD


def test_a_head_that_writes_another_direction_for_every_item_is_not():
    """It copies one of five tokens: the mean difference has at most a share of each one's direction."""
    found = head_directions(planted.build({2: 1.0}), pairs(40), heads=[(1, 2)])
    own = found.part("head 1.2", by="own, NIE").estimate
    assert own == pytest.approx(found.estimate)
    for (how, _), share in shares(found).items():
        assert share.estimate < 0.6, how
        assert share.ends[0] < share.estimate < share.ends[1] < 1
    assert found.part("head 1.2", by="own, NIE")["cosine"] < 0.8


def loop(model, p, site, moves):
    """Log-probability after each change of one head's z, in a plain loop: its z0 and z1, and what to set."""
    n, n_heads = p.n_answer, 4
    module = tiny.projections(model)[site[0]]
    z = {}

    def run(ids, change):
        def hook(_, args):
            x = args[0].clone()
            d = x.shape[-1] // n_heads
            at = slice(site[1] * d, (site[1] + 1) * d)
            x[0, -n:, at] = change(x[0, -n:, at])
            return (x, *args[1:])

        handle = module.register_forward_pre_hook(hook)
        with torch.no_grad(), tiny.exact_softmax():
            logits = model(torch.tensor([[*ids, *p.answer_ids[:-1]]]), use_cache=False).logits[0, -n:]
        handle.remove()
        gold = torch.tensor(p.answer_ids)[:, None]
        return float(torch.log_softmax(logits, -1).gather(-1, gold).sum())

    for arm, ids in enumerate((p.ids0, p.ids1)):
        run(ids, lambda x, arm=arm: z.setdefault(arm, x.clone()))
    given = [(ids, make(z[0], z[1])) for ids, make in moves]
    return z, [run(ids, lambda _, new=new: new) for ids, new in given]


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "gemma2", "gpt_oss", "mistral", "phi"])
def test_directions_equal_a_hook_loop(model_type):
    model = tiny.make(model_type)
    items = [pair(seed=s, n0=9 + s, n1=14 - s, answer=(5, 9) if s % 2 else (4,)) for s in range(6)]
    heads = [(0, 1), (2, 3)]
    with tiny.exact_softmax():
        found = head_directions(model, items, heads=heads)
    by_id = {p.item_id: p for p in items}
    for head in heads:
        name = "head {}.{}".format(*head)
        zs = [loop(model, by_id[i], head, [])[0] for i in found["search_items"]]
        v = torch.stack([(z[1] - z[0]).mean(0) for z in zs]).mean(0)
        np.testing.assert_allclose(found["directions"][name], v, rtol=0, atol=ATOL)
        unit = v / v.norm()
        made = {
            "own": lambda d: d,
            "component": lambda d, u=unit: (d @ u)[:, None] * u,
            "shift": lambda d, v=v: v.expand_as(d),
        }
        for how, of in made.items():
            got = {"NIE": [], "pure NIE": []}
            for item in found["held_out_items"]:
                p = by_id[item]
                moves = [
                    (p.ids1, lambda _, b: b),
                    (p.ids1, lambda a, b, of=of: b - of(b - a)),
                    (p.ids0, lambda a, _: a),
                    (p.ids0, lambda a, b, of=of: a + of(b - a)),
                ]
                y11, without, y00, with_ = loop(model, p, head, moves)[1]
                got["NIE"].append(y11 - without)
                got["pure NIE"].append(with_ - y00)
            for way, values in got.items():
                mean = found.part(name, by=f"{how}, {way}").estimate
                np.testing.assert_allclose(mean, np.mean(values), rtol=0, atol=ATOL)
    # The own effect is the sweep's.
    with tiny.exact_softmax():
        sweep = head_sweep(model, [by_id[i] for i in found["held_out_items"]], heads=heads)
    for k, head in enumerate(heads):
        name = "head {}.{}".format(*head)
        for way, effect in (("NIE", sweep.nie), ("pure NIE", sweep.pure_nie)):
            np.testing.assert_allclose(
                found.part(name, by=f"own, {way}").estimate, effect.mean(0)[k], rtol=0, atol=ATOL
            )


def test_items_twice_over_in_a_cluster_say_no_more_than_once():
    tried = try_directions(tiny.make("llama"), [pair(seed=s) for s in range(14)], heads=[(0, 1), (2, 3)])
    doubled = {
        "effects": {key: [row for row in rows for _ in range(2)] for key, rows in tried["effects"].items()},
        **{name: np.repeat(tried[name], 2, 0).tolist() for name in ("te", "clusters", "cosines")},
    }
    one, two = judge_directions(tried), judge_directions(tried | doubled)
    for row, other in zip((one.overall, *one.parts), (two.overall, *two.parts), strict=True):
        np.testing.assert_allclose([other.estimate, *other.ends], [row.estimate, *row.ends], rtol=1e-9)


def test_heads_are_chosen_on_the_search_items():
    model, items = planted.build({2: 1.0, 3: -0.5}), one_answer()
    sweep = head_sweep(model, items)
    found = head_directions(model, items, sweep=sweep, top=2)
    assert list(found["directions"]) == ["head 1.2", "head 1.3"]
    seen = [p for p in items if p.item_id in found["search_items"]]
    again = head_directions(model, items, sweep=head_sweep(model, seen), top=2)
    assert again.to_dict() == found.to_dict()


def test_bad_input_of_directions_is_named():
    model, items = planted.build({2: 1.0}), one_answer()
    sweep = head_sweep(model, items[:2])
    for match, options in (
        ("nothing to choose heads by", {}),
        ("nothing to choose heads by", {"sweep": head_sweep(model, items, directions=("nie",))}),
        ("the sweep has no item", {"sweep": sweep}),
        ("top is 0", {"sweep": sweep, "top": 0}),
        ("head 0.4 is out of range", {"heads": [(0, 4)]}),
        ("unknown outcome 'margin'", {"heads": [(1, 2)], "outcome": "margin"}),
        ("level is 2", {"heads": [(1, 2)], "level": 2}),
        ("each side needs two", {"heads": [(1, 2)], "held_out": 0.9}),
    ):
        with pytest.raises(MediationError, match=match):
            head_directions(model, items, **options)
    same = [PromptPair(item_id=p.item_id, ids0=p.ids1, ids1=p.ids1, answer_ids=p.answer_ids) for p in items]
    with pytest.raises(MediationError, match=r"head 1.2 gives the same under both prompts"):
        head_directions(model, same, heads=[(1, 2)])
