"""Packs in parts give the digits of the whole, and are taken where workers would wait."""

from __future__ import annotations

import random
import sqlite3
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

import whyprompt as wp
from whyprompt import load_model
from whyprompt.trials.models import parts
from whyprompt.trials.models.blocks import block_queries
from whyprompt.trials.models.local import Encoded
from whyprompt.trials.models.packing import plan_packs
from whyprompt.trials.models.parts import can_be_parted, cut, parts_are_exact
from whyprompt.trials.models.scoring import RootCache, plan_scoring, score_pack


@pytest.fixture
def requests():
    rng = np.random.default_rng(0)
    root = rng.integers(3, 64, 20).tolist()
    stems = [rng.integers(3, 64, 6).tolist() for _ in range(5)]
    texts = [(*root, *stems[i % 5], *rng.integers(3, 64, 3 + i % 7).tolist()) for i in range(40)]
    return [Encoded(ids[:-2], ids[-2:], look_ahead=n % 3 == 0) for n, ids in enumerate(texts)]


@pytest.fixture(scope="module")
def even_model(tmp_path_factory, model_maker):
    return model_maker(tmp_path_factory.mktemp("even") / "model", even=True)


@pytest.fixture
def lm(even_model):
    return load_model(str(even_model), device="cpu", threads=1)


def digits(lm, requests, packs):
    cache = RootCache()
    found = {n: s for pack in packs for n, s in score_pack(lm, requests, pack, cache)}
    return {n: (tuple(s.log_probs.tolist()), s.greedy, s.next_token) for n, s in found.items()}


@pytest.mark.parametrize("queries", [16, 10_000])
def test_a_part_gives_what_the_whole_gives_to_the_last_digit(lm, requests, queries):
    packs = plan_scoring(lm, requests)
    assert max(len(p.members) for p in packs) >= 20
    assert all(can_be_parted(requests, p) for p in packs)
    with block_queries(queries):
        whole = digits(lm, requests, packs)
        for count in (2, 3, 7, 40):
            some = [part for pack in packs for part in pack.in_parts(count)]
            random.Random(count).shuffle(some)  # noqa: S311 - an order
            assert digits(lm, requests, some) == whole
    assert max(len(p.computed) for p in some) < 20


def test_whether_parts_are_exact_is_tried_and_remembered(lm, tmp_path, monkeypatch):
    monkeypatch.setenv("WHYPROMPT_CACHE", str(tmp_path))
    assert parts_are_exact(lm)
    tried = []
    monkeypatch.setattr(parts, "_same_rows", tried.append)
    assert parts_are_exact(lm)
    assert not tried
    assert not parts_are_exact(replace(lm, packs=False))
    assert not parts_are_exact(replace(lm, blocks=False))


def test_a_model_whose_tokens_end_within_a_vector_is_done_as_it_is(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("WHYPROMPT_CACHE", str(tmp_path))
    assert not parts_are_exact(load_model(str(tiny_model), device="cpu", threads=1))


@pytest.mark.parametrize("moved", ["rows", "scores"])
def test_products_whose_rows_depend_on_their_number_are_found(lm, tmp_path, monkeypatch, moved):
    monkeypatch.setenv("WHYPROMPT_CACHE", str(tmp_path))
    # As where a routine for few rows rounds otherwise: fewer than a small pack has, or than a large one.
    least = 700 if moved == "rows" else 12

    def of_few(own, x):
        return own(x) * (1 + 2e-7 * (x.numel() // x.shape[-1] < least))

    for product in [m for m in lm.model.modules() if type(m).__name__ == "Linear"]:
        monkeypatch.setitem(product.__dict__, "forward", partial(of_few, product.forward))
    if moved == "rows":
        assert parts._same_scores(lm)
    assert not parts_are_exact(lm)


def planned(members, tokens, root, n):
    """Packs of so many sequences each, which share a root and nothing else."""
    rng = np.random.default_rng(1)
    sequences = [(*[1] * root, *rng.integers(3, 10_000, tokens).tolist()) for _ in range(members * n)]
    return plan_packs(sequences, limits=[root] * len(sequences), budget=10**6, most=members)


def test_units_are_cut_where_workers_would_wait_and_nowhere_else():
    packs = planned(16, 60, 30, 38)
    alike, able = ["arm"] * 38, [True] * 38
    assert len(packs) == 38
    for workers in (1, 2, 19, 38):
        assert cut(packs, alike, able, workers) == list(enumerate(packs))
    whole = parts._done_after(list(enumerate(packs)), alike, 64)
    made = cut(packs, alike, able, 64)
    assert sorted(m for _, p in made for m in p.members) == list(range(608))
    assert all(set(p.members) <= set(packs[n].members) for n, p in made)
    # 38 units on 64 workers take as long as one of them; parts much less.
    assert parts._done_after(made, alike, 64) < 0.75 * whole
    # What needs one round more than is full is cut alone.
    packs = planned(16, 60, 30, 70)
    made = cut(packs, ["arm"] * 70, [True] * 70, 64)
    assert sum(p.computed is None for _, p in made) == 64
    assert cut(packs, ["arm"] * 70, [False] * 70, 64) == list(enumerate(packs))
    assert cut([], [], [], 64) == []


def test_no_parts_are_looked_for_where_hardly_a_worker_waits(monkeypatch):
    tried, after = [], parts._done_after
    monkeypatch.setattr(parts, "_done_after", lambda *asked: tried.append(asked) or after(*asked))
    packs = planned(16, 60, 30, 130)
    for workers, searched in ((64, True), (65, False), (10, False)):
        tried.clear()
        cut(packs, ["arm"] * 130, [True] * 130, workers)
        assert (len(tried) > 1) == searched, workers


def test_what_has_rows_too_few_or_too_many_is_not_parted():
    def able(answer, n):
        asked = [Encoded((1, 2, 3, 4, 5 + k), tuple(range(answer))) for k in range(n)]
        (pack,) = plan_packs([r.fed for r in asked], limits=[3] * n, budget=10**6)
        return can_be_parted(asked, pack)

    assert able(1, 4)
    assert not able(1, 3)
    assert not able(1, 1)
    assert not able(2, 70)


STUDY = {
    "name": "parted",
    "question": "Does it matter in how many parts a unit is done?",
    "arms": {"direct": {"kind": "direct"}, "few_shot": {"kind": "few_shot", "shots": 2}},
    "outcomes": ["log_prob", "exact_match"],
    "reps": 2,
    "effect": {},
}


@pytest.fixture
def study(tmp_path, even_model, items_writer):
    def make(**more):
        items_writer(tmp_path / "items.jsonl")
        columns = {"item_id": "id", "task_type": "kind", "difficulty": "level", "solution": "why"}
        source = {"source": "file", "path": str(tmp_path / "items.jsonl"), "size": 20, "shot_pool": 8}
        model = {"name": str(even_model), "device": "cpu", "threads": 1}
        return wp.Study.model_validate(
            STUDY | {"model": model, "items": [source | {"columns": columns}]} | more
        )

    return make


def stored(folder):
    with sqlite3.connect(folder / "trials.sqlite") as db:
        rows = db.execute("SELECT item_id, arm, rep, unit, outcomes FROM trials ORDER BY 1, 2, 3").fetchall()
        return rows, db.execute("SELECT * FROM items ORDER BY position").fetchall()


def test_a_run_in_parts_is_the_run(study, tmp_path, monkeypatch):
    made = study()
    wp.run_study(made, tmp_path / "whole")
    monkeypatch.setattr("whyprompt.trials.models.remote.MANY_WORKERS", 2)
    asked = []

    def thirds(packs, _alike, able, workers):
        asked.append((len(packs), all(able), workers))
        return [(n, part) for n, pack in enumerate(packs) for part in pack.in_parts(3)]

    monkeypatch.setattr("whyprompt.trials.run.cut", thirds)
    with wp.workers("processes", count=2):
        wp.run_study(made, tmp_path / "parts")
        assert stored(tmp_path / "parts") == stored(tmp_path / "whole")
        # Of the items, and of the trials.
        assert [workers for _, _, workers in asked] == [2, 2]
        assert asked[1][0] >= 4
        # What a model writes, and what a function of one's own is given, is done as it is.
        asked.clear()
        wp.run_study(study(outcomes=["log_prob", "string_match"]), tmp_path / "written")
        assert len(asked) == 1
