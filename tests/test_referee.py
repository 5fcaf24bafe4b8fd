"""The referee's guesses against finite differences and plain loops, its programs in closed form."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

sys.path.insert(0, str(Path(__file__).parent / "mediation"))
import tiny

from whyprompt import head_sweep, layer_sweep
from whyprompt.mediation import PromptPair

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
PAIR = PromptPair(item_id="a", ids0=[1, 5, 6, 9], ids1=[1, 5, 6, 7, 8, 9], answer_ids=[3, 4])
# Norms of llama and others are computed in float32, where finite differences see nothing.
KINDS = ["gpt2", "gpt_neox", "starcoder2"]


@pytest.fixture
def methods(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import referee_methods

    return referee_methods


@pytest.fixture
def models(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import referee_models

    return referee_models


@pytest.fixture
def opened(methods, request):
    """A tiny model, and the worlds of prompt 0 and prompt 1."""
    model = tiny.make(request.param).requires_grad_(False)
    with tiny.exact_softmax():
        yield model, *(methods.read(model, ids, PAIR.answer_ids) for ids in (PAIR.ids0, PAIR.ids1))


def patched(model, base_ids, source_ids, share, at):
    """Outcome with one head's z moved by a share of the way to the other prompt's: hooks on whole runs."""
    n, heads = PAIR.n_answer, model.config.num_attention_heads
    mods, z = tiny.projections(model), {}

    def run(ids, hooks):
        handles = [mods[i].register_forward_pre_hook(h) for i, h in hooks.items()]
        with torch.no_grad(), tiny.exact_softmax():
            logits = model(torch.tensor([[*ids, *PAIR.answer_ids[:-1]]]), use_cache=False).logits[0, -n:]
        for handle in handles:
            handle.remove()
        return float(torch.log_softmax(logits, -1).gather(-1, torch.tensor(PAIR.answer_ids)[:, None]).sum())

    def keep(_, args):
        z["source"] = args[0][0, -n:].clone()

    def move(_, args):
        x = args[0].clone()
        d = x.shape[-1] // heads
        own = slice(at[1] * d, (at[1] + 1) * d)
        x[0, -n:, own] += share * (z["source"][:, own] - x[0, -n:, own])
        return (x, *args[1:])

    run(source_ids, {at[0]: keep})
    return run(base_ids, {at[0]: move})


@pytest.mark.parametrize("opened", KINDS, indirect=True)
def test_attribution_is_the_derivative_of_the_exact_patch_at_its_beginning(opened, methods):
    model, zero, one = opened
    got = methods.attribution(model, one, zero)
    step = 1e-5
    for at in [(layer, head) for layer in range(3) for head in range(4)]:
        ends = [patched(model, PAIR.ids1, PAIR.ids0, share, at) for share in (-step, step)]
        assert got[at] == pytest.approx((ends[1] - ends[0]) / (2 * step), abs=1e-7), at
    # And of the engine's whole patch it is the first term: what is left goes with the square of the way.
    assert one.y == pytest.approx(patched(model, PAIR.ids1, PAIR.ids0, 0.0, (0, 0)), abs=1e-10)
    sweep = head_sweep(model, [PAIR])
    exact = [patched(model, PAIR.ids1, PAIR.ids0, 1.0, h) for h in sweep.heads]
    np.testing.assert_allclose(one.y - np.array(exact), sweep.nie[0], atol=1e-9)


@pytest.mark.parametrize("opened", KINDS, indirect=True)
def test_integrated_gradients_of_a_layer_add_up_to_the_layers_exact_effect(opened, methods):
    model, zero, one = opened
    exact = layer_sweep(model, [PAIR])
    got = methods.integrated(model, one, zero, 200)
    np.testing.assert_allclose(-got.sum(1), exact.nie[0], rtol=1e-3, atol=1e-4)
    got = methods.integrated(model, zero, one, 200)
    np.testing.assert_allclose(got.sum(1), exact.pure_nie[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("opened", KINDS, indirect=True)
def test_graddrop_is_the_mean_size_over_backward_passes_that_leave_out_a_layer(opened, methods):
    """Anew, a layer at a time: what it adds is fixed, and the derivative is one of finite differences."""
    model, zero, one = opened
    got = methods.graddrop(model, one, zero)
    n, heads = PAIR.n_answer, model.config.num_attention_heads
    layers, mods = methods.layers(model), tiny.projections(model)
    moves = methods.differences(one, zero)
    tokens = torch.tensor([[*PAIR.ids1, *PAIR.answer_ids[:-1]]])

    def run(out_of, at, share, fixed):
        """Move one head's z; layer `out_of` adds what it adds where nothing is moved."""

        def move(_, args):
            x = args[0].clone()
            d = x.shape[-1] // heads
            own = slice(at[1] * d, (at[1] + 1) * d)
            x[0, -n:, own] += share * moves[at[0]][0, :, own]
            return (x, *args[1:])

        def fix(_, args, kwargs, out):
            came = args[0] if args else kwargs["hidden_states"]
            left = out[0] if isinstance(out, tuple) else out
            if not fixed:
                fixed.append((left - came).clone())
            return (came + fixed[0], *out[1:]) if isinstance(out, tuple) else came + fixed[0]

        handles = [
            mods[at[0]].register_forward_pre_hook(move),
            layers[out_of].register_forward_hook(fix, with_kwargs=True),
        ]
        with torch.no_grad():
            logits = model(tokens, use_cache=False).logits[0, -n:]
        for handle in handles:
            handle.remove()
        return float(torch.log_softmax(logits, -1).gather(-1, torch.tensor(PAIR.answer_ids)[:, None]).sum())

    for at in [(0, 0), (0, 3), (1, 1), (2, 2)]:
        slopes = []
        for out_of in range(3):
            fixed = []
            run(out_of, at, 0.0, fixed)
            ends = [run(out_of, at, share, fixed) for share in (-1e-5, 1e-5)]
            slopes.append(abs(ends[1] - ends[0]) / 2e-5)
        assert slopes[at[0]] < 1e-9  # by its own layer alone does a head reach anything
        assert got[at] == pytest.approx(sum(slopes) / 2, abs=1e-7), at


@pytest.mark.parametrize("opened", ["gpt2", "starcoder2"], indirect=True)
def test_queries_exact_linear_and_with_the_row_computed_anew(opened, methods):
    model, zero, one = opened
    exact, linear, fixed = (
        f(model, one, zero) for f in (methods.query_exact, methods.query_attribution, methods.query_fixed)
    )
    n, heads = PAIR.n_answer, model.config.num_attention_heads
    mods, projections = methods.query_modules(model), tiny.projections(model)
    moves = methods.query_moves(one, zero)
    tokens = torch.tensor([[*PAIR.ids1, *PAIR.answer_ids[:-1]]])

    def run(at, share, held=None):
        """Move one head's query at the answer positions by a share; give the outcome, or the layer's z."""
        seen = {}

        def move(_, __, out):
            out = out.clone()
            d = moves[0].shape[-1] // heads
            own = slice(at[1] * d, (at[1] + 1) * d)
            out[0, -n:, own] += share * moves[at[0]][0, :, own]
            return out

        def see(_, args):
            seen["z"] = args[0][0, -n:].clone()

        handles = [
            mods[at[0]].register_forward_hook(move),
            projections[at[0]].register_forward_pre_hook(see),
        ]
        with torch.no_grad():
            logits = model(tokens, use_cache=False).logits[0, -n:]
        for handle in handles:
            handle.remove()
        y = float(torch.log_softmax(logits, -1).gather(-1, torch.tensor(PAIR.answer_ids)[:, None]).sum())
        return seen["z"] if held else y

    slopes = methods.z_gradients(model, one)
    for at in [(0, 1), (1, 3), (2, 0)]:
        assert exact[at] == pytest.approx(run(at, 1.0) - run(at, 0.0), abs=1e-9)
        assert linear[at] == pytest.approx((run(at, 1e-5) - run(at, -1e-5)) / 2e-5, abs=1e-7)
        moved = run(at, 1.0, held=True) - run(at, 0.0, held=True)
        assert fixed[at] == pytest.approx(float((slopes[at[0]][0] * moved).sum()), abs=1e-9)


@pytest.mark.parametrize("opened", ["gpt2", "starcoder2"], indirect=True)
def test_integrated_inputs_are_the_gradient_where_there_is_nothing_between(opened, methods):
    model, zero, one = opened
    assert methods.integrated_inputs(model, one, zero, (PAIR.ids1, PAIR.ids0), 3) is None
    other = [1, 5, 8, 7, 8, 9]
    source = methods.read(model, other, PAIR.answer_ids)
    # One step of a path from a prompt to itself stays there, and the difference of z is the source's.
    got = methods.integrated_inputs(model, one, source, (PAIR.ids1, PAIR.ids1), 1)
    np.testing.assert_allclose(got, methods.attribution(model, one, source), atol=1e-9)
    # The middle of a path is the same from both ends.
    there = methods.integrated_inputs(model, one, source, (PAIR.ids1, other), 5)
    back = methods.integrated_inputs(model, source, one, (other, PAIR.ids1), 5)
    np.testing.assert_allclose(there, -back, atol=1e-9)
    size = methods.magnitude(model, one, source)
    assert size.shape == (3, 4)
    step = (one.z[1] - source.z[1]).unflatten(-1, (4, -1))[0, :, 2]
    assert size[1, 2] == pytest.approx(float(step.norm()))


@pytest.mark.parametrize("number", range(6))
def test_programs_have_the_effects_that_they_were_compiled_to_have(models, number):
    program = models.programs()[number]
    sweep = head_sweep(program.model, program.pairs)
    np.testing.assert_allclose(sweep.te, program.te, atol=1e-9)
    for quantity in ("nie", "pure_nie"):
        want = np.broadcast_to(program.grid(quantity), (len(program.pairs), 2, 4))
        np.testing.assert_allclose(sweep.grid(quantity), want, atol=1e-9, err_msg=program.name)


def test_what_is_known_of_approximations_on_programs(models, methods):
    """Where a softmax is full a gradient sees nothing, and at a bar that is not reached neither."""
    found = {}
    for program in models.programs():
        pair = program.pairs[0]
        worlds = [methods.read(program.model, ids, pair.answer_ids) for ids in (pair.ids0, pair.ids1)]
        found[program.name] = program, worlds
    gain = 6.0
    program, (zero, one) = found["copy"]
    slope = gain * (1 - np.exp(models.log_prob(gain)))
    assert -methods.attribution(program.model, one, zero)[1, 2] == pytest.approx(slope, abs=1e-9)
    slope = gain * (1 - np.exp(models.log_prob(0.0)))
    assert methods.attribution(program.model, zero, one)[1, 2] == pytest.approx(slope, abs=1e-9)
    got = methods.integrated(program.model, one, zero, 400)
    np.testing.assert_allclose(-got, program.grid("nie"), atol=1e-4)
    program, (zero, one) = found["cancel"]
    assert abs(methods.attribution(program.model, one, zero)[0, 2]) < 1e-9
    slope = 2 * gain * (1 - np.exp(models.log_prob(gain)))
    assert methods.graddrop(program.model, one, zero)[0, 2] == pytest.approx(slope, abs=1e-9)
    program, (zero, one) = found["pointer"]
    assert abs(methods.attribution(program.model, one, zero)[0, 2]) < 1e-9
    assert abs(methods.graddrop(program.model, one, zero)[0, 2]) < 1e-9
    fixed, exact = (
        methods.query_fixed(program.model, one, zero),
        methods.query_exact(program.model, one, zero),
    )
    assert -exact[1, 2] == pytest.approx(program.te, abs=1e-9)
    assert abs(methods.query_attribution(program.model, one, zero)[1, 2]) < 1e-9
    # The reader's new z is known, and that both digits' logits move: the one falls, the other rises.
    right, wrong = np.exp(models.log_prob(gain)), np.exp(models.log_prob(0.0, gain))
    assert -fixed[1, 2] == pytest.approx(gain * (1 - right + wrong), abs=1e-9)


def test_scores(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import referee_scores

    rng = np.random.default_rng(0)
    exact = rng.normal(size=(3, 40)) ** 3
    guess = exact + 0.3 * rng.normal(size=(3, 40))
    guess[2] = -2 * exact[2]
    got = referee_scores.scored(exact, guess, 5)
    for i in range(3):
        want = stats.spearmanr(np.abs(exact[i]), np.abs(guess[i])).statistic
        assert got["rank"][i] == pytest.approx(want)
        best = set(np.argsort(-np.abs(exact[i]))[:5].tolist())
        order = np.argsort(-np.abs(guess[i])).tolist()
        assert got["recall"][i] == len(best & set(order[:5])) / 5
        assert got["list"][i] == next(k for k in range(5, 41) if best <= set(order[:k]))
    assert [got["rank"][2], got["recall"][2], got["list"][2]] == pytest.approx([1, 1, 5])
    assert [got["sign"][2], got["error"][2]] == pytest.approx([0, 3])
    items = rng.normal(size=(60, 40)) + rng.normal(size=40)
    assert referee_scores.judged(items, items)["error"] == pytest.approx((0, np.nan, np.nan), nan_ok=True)
    off = items + rng.normal(size=(60, 40))
    one, low, high = referee_scores.judged(items, off)["rank"]
    each = [stats.spearmanr(np.abs(e), np.abs(g)).statistic for e, g in zip(items, off, strict=True)]
    assert one == pytest.approx(np.mean(each))
    assert low < one < high < 1
    held = referee_scores.coverage(items, off, n=12, reps=40)
    assert all(v >= 0.85 for v in held.values())
    # Of a verdict's bounds one end counts: an interval that is too low holds "names at least".
    low = dict.fromkeys(referee_scores.FORMS, (0.0, 0.0, 0.0))
    monkeypatch.setattr(referee_scores, "judged", lambda *_: low)
    held = referee_scores.coverage(items, off, n=12, reps=2)
    assert [held[name] for name in ("recall", "names at least", "right to within")] == [0, 1, 0]
    monkeypatch.undo()
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    short = referee_scores.in_short(
        {
            "one": {("exact", q): items for q in ("nie", "pure_nie")}
            | {("magnitude", q): off for q in ("nie", "pure_nie")}
        },
        {"one": {(m, q): 1.0 for m in ("exact", "magnitude") for q in ("nie", "pure_nie")}},
    )
    assert [row.split(" | ")[0] for row in short[2:-1]] == ["| `magnitude`"]


def run(*words):
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(BENCHMARKS / "referee.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


@pytest.mark.slow
def test_the_part_of_the_page_that_needs_no_model_is_what_the_script_says(tmp_path):
    page = tmp_path / "page.md"
    done = run("--contrasts", "--write", str(page))
    assert done.returncode == 0, done.stderr
    assert page.read_text() == done.stdout
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| `pointer` | NIE")]
    assert [cells[3:6] for cells in rows] == [["6.00", "0.00", "0.00"], ["6.00", "0.16", "0.16"]]
    kept = (BENCHMARKS.parent / "docs" / "explanation" / "referee.md").read_text()
    assert all(line in kept for line in done.stdout.splitlines())


def test_lists_of_heads_are_read_and_refused(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import referee

    file = tmp_path / "late.json"
    file.write_text(json.dumps([[1, 2], [0, 3]]))
    assert referee.read_lists(file, (2, 4)) == {"late": [(1, 2), (0, 3)]}
    file.write_text(json.dumps({"a": [[1, 2]], "b": [[0, 0]]}))
    assert referee.read_lists(file, (2, 4)) == {"a": [(1, 2)], "b": [(0, 0)]}
    for given, words in (([[2, 0]], "names"), ([], "no head"), ([[0, 0], [0, 0]], "twice"), ([1], "no list")):
        file.write_text(json.dumps({"own": given}))
        with pytest.raises(SystemExit, match=words):
            referee.read_lists(file, (2, 4))
