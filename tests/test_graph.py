"""Causal graphs: textbook graphs by hand, separation against networkx, adjustment against brute force."""

import itertools
import json
from xml.etree import ElementTree as ET

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from whyprompt import CausalGraph
from whyprompt.errors import DataError, GraphError

M_BIAS = "x -> y; u1 -> x; u1 -> m; u2 -> m; u2 -> y; u1 [latent]; u2 [latent]"
BUTTERFLY = "x -> y; a -> x; a -> m; b -> m; b -> y; m -> x; m -> y"
FRONT_DOOR = "x -> m -> y; x <-> y"
INSTRUMENT = "z -> x -> y; x <-> y"
NAPKIN = "w -> z -> x -> y; w <-> x; w <-> y"
FEW_SHOT = "difficulty -> arm, score; arm -> prompt_tokens; arm -> reasoning -> score; arm -> score"


def sets(*names):
    return [frozenset(n.split()) for n in names]


# --------------------------------------------------------------------------------------------- reading


def test_text_reads_chains_lists_comments_and_both_arrows():
    graph = CausalGraph.parse(
        """
        a -> b -> c   # a chain
        d <- c; a <-> d
        e, f -> d
        lonely
        "re 74" -> d; u [latent] -> d
        a->re-75
        """
    )
    assert graph.nodes == ("a", "b", "c", "d", "e", "f", "lonely", "re 74", "u", "re-75")
    assert graph.directed == (
        ("a", "b"),
        ("b", "c"),
        ("c", "d"),
        ("e", "d"),
        ("f", "d"),
        ("re 74", "d"),
        ("u", "d"),
        ("a", "re-75"),
    )
    assert graph.bidirected == (("a", "d"),)
    assert graph.unobserved == {"u"}
    assert CausalGraph.parse(str(graph)) == graph
    assert CausalGraph.from_dot(graph.to_dot()) == graph
    assert CausalGraph.read(graph.to_dot()) == graph


def test_dot_subset():
    graph = CausalGraph.from_dot(
        """
        // a comment
        strict digraph "my graph" {
          rankdir=LR; node [shape=box, color="red"];
          a -> {b c} -> d [label="x"];  /* two
          lines */ u [observed=no]; a -> d [dir=both]; "a b" -> 1.5; d -> e [dir=back]
        }
        """
    )
    assert graph.directed == (("a", "b"), ("a", "c"), ("b", "d"), ("c", "d"), ("a b", "1.5"), ("e", "d"))
    assert graph.bidirected == (("a", "d"),)
    assert graph.unobserved == {"u"}
    dagitty = CausalGraph.from_dot(
        'dag { x [exposure,pos="0,1"] y [outcome] u [latent] u -> x u -> y x <-> y }'
    )
    assert dagitty.nodes == ("x", "y", "u")
    assert (dagitty.unobserved, dagitty.bidirected) == ({"u"}, (("x", "y"),))


def test_gml_subset_reads_what_networkx_and_dowhy_write():
    wanted = CausalGraph.parse("a -> b; a -> c; b -> c")
    digraph = nx.DiGraph([("a", "b"), ("a", "c"), ("b", "c")])
    assert CausalGraph.from_gml("\n".join(nx.generate_gml(digraph))) == wanted
    assert CausalGraph.from_networkx(digraph) == wanted
    nodes = 'node[id "Z" label "Z" observed "no"] node[id "T" label "T"]'
    dowhy = f'graph[directed 1 {nodes} edge[source "Z" target "T"]]'
    assert CausalGraph.read(dowhy) == CausalGraph.parse("Z [latent] -> T")


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (CausalGraph.parse, "a -> b\nb => c", "line 2"),
        (CausalGraph.parse, "a -> ; b", "line 1: expected a variable's name"),
        (CausalGraph.parse, "a b -> c", "line 1: expected an arrow"),
        (CausalGraph.parse, "a [secret] -> b", r"unknown tag '\[secret\]'"),
        (CausalGraph.parse, "a -> b\n\nb -> c -> a", "cycle: a -> b -> c -> a"),
        (CausalGraph.parse, "a -> a", "self loop: a -> a"),
        (CausalGraph.parse, "a <-> a", "self loop: a <-> a"),
        (CausalGraph.parse, "a -> b; b <- a", "a -> b is given twice"),
        (CausalGraph.parse, "a <-> b; b <-> a", "b <-> a is given twice"),
        (CausalGraph.from_dot, "graph { a -- b }", "line 1: expected 'digraph'"),
        (CausalGraph.from_dot, "digraph {\n a -- b }", "line 2: '--' has no direction"),
        (CausalGraph.from_dot, "digraph {\n\n subgraph s { a } }", "line 3: subgraphs"),
        (CausalGraph.from_dot, "digraph { a:n -> b }", "ports"),
        (CausalGraph.from_dot, "digraph {\n a -> b [sign=plus] }", "line 2: unknown attribute 'sign'"),
        (CausalGraph.from_dot, "digraph { a -> b [dir=none] }", "dir=none has no causal meaning"),
        (CausalGraph.from_dot, "digraph { a -> b", "closing '}' is missing"),
        (CausalGraph.from_dot, "digraph { a -> b } c", "after the closing"),
        (CausalGraph.from_dot, "digraph { a -> {b -> c} }", "expected a node"),
        (CausalGraph.from_gml, "graph [ node [ id 0 ] ]", "'directed 1' is missing"),
        (CausalGraph.from_gml, "graph [ directed 1\n node [ id 0 wish 3 ] ]", "line 2: unknown key 'wish'"),
        (
            CausalGraph.from_gml,
            "graph [ directed 1\n\n edge [ source 0 target 1 ] ]",
            "line 3: an edge names node 0",
        ),
        (CausalGraph.from_gml, "graph [ directed 1 node [ label 3 ] ]", "without 'id'"),
        (CausalGraph.from_gml, "graph [ directed 1 node [ id 1 ] node [ id 1 ] ]", "used twice"),
        (CausalGraph.from_gml, "digraph 3", "unknown key 'digraph'"),
        (CausalGraph.from_gml, "graph [ directed 1", "expected a key"),
        (CausalGraph.read, "no_such_file.dot", "neither a file nor arrow text"),
    ],
)
def test_what_is_not_understood_is_refused(read, text, message):
    with pytest.raises(GraphError, match=message):
        read(text)


def test_networkx_graphs_that_say_something_else_are_refused():
    with pytest.raises(GraphError, match="DiGraph"):
        CausalGraph.from_networkx(nx.Graph([("a", "b")]))
    with pytest.raises(GraphError, match="DiGraph"):
        CausalGraph.from_networkx(nx.MultiDiGraph([("a", "b")]))
    with pytest.raises(GraphError, match="node 1 is a int"):
        CausalGraph.from_networkx(nx.DiGraph([(1, 2)]))


def test_a_file_is_read(tmp_path):
    path = tmp_path / "graph.txt"
    path.write_text("# a comment\na -> b\n", encoding="utf-8")
    assert CausalGraph.read(path) == CausalGraph.read(str(path)) == CausalGraph.parse("a -> b")


# --------------------------------------------------------------------- textbook graphs


def test_m_bias():
    graph = CausalGraph.parse(M_BIAS)
    assert graph.adjustment_sets("x", "y") == [frozenset()]
    assert "collider" in graph.roles("x", "y")["m"]
    with pytest.raises(
        GraphError, match=r"'m': adjusting for a collider opens the path x <- u1 -> m <- u2 -> y"
    ):
        graph.check_adjustment("x", "y", ["m"])
    with pytest.raises(GraphError, match="'u1' is declared unobserved"):
        graph.check_adjustment("x", "y", "u1")


def test_m_bias_through_the_descendant_of_a_collider():
    graph = CausalGraph.parse(M_BIAS + "; m -> d")
    assert graph.roles("x", "y")["d"] == ("descendant of a collider",)
    with pytest.raises(GraphError, match="'d': adjusting for the descendant of a collider opens the path"):
        graph.check_adjustment("x", "y", ["d"])


def test_butterfly():
    graph = CausalGraph.parse(BUTTERFLY)
    assert graph.adjustment_sets("x", "y") == sets("a m", "b m")
    assert graph.adjustment_sets("x", "y", observed=["m"]) == []
    assert graph.roles("x", "y")["m"] == ("confounder", "collider")
    with pytest.raises(GraphError, match="'m': adjusting for a collider opens") as caught:
        graph.check_adjustment("x", "y", ["m"])
    assert "{a, m}" in str(caught.value)
    assert graph.check_adjustment("x", "y", ["a", "m"]) == ()


def test_front_door():
    graph = CausalGraph.parse(FRONT_DOOR)
    assert graph.adjustment_sets("x", "y") == []
    assert graph.front_door_sets("x", "y") == sets("m")
    with pytest.raises(GraphError, match="run both arms on the same items"):
        graph.check_adjustment("x", "y", [])
    assert CausalGraph.parse(FRONT_DOOR + "; x -> y").front_door_sets("x", "y") == []
    assert CausalGraph.parse(FRONT_DOOR + "; m <-> y").front_door_sets("x", "y") == []
    # A node off the causal path can be needed: it cuts the backdoor path m <- w -> y.
    assert CausalGraph.parse(FRONT_DOOR + "; w -> m; w -> y").front_door_sets("x", "y") == sets("m w")
    two_routes = CausalGraph.parse("x -> a -> b -> y; x -> c -> y; x <-> y")
    assert two_routes.front_door_sets("x", "y") == sets("a c", "b c")


def test_instrument():
    graph = CausalGraph.parse(INSTRUMENT)
    assert graph.adjustment_sets("x", "y") == []
    assert graph.instruments("x", "y") == {"z": frozenset()}
    assert graph.roles("x", "y")["z"] == ("instrument",)
    assert CausalGraph.parse(INSTRUMENT + "; z -> y").instruments("x", "y") == {}
    conditional = CausalGraph.parse(INSTRUMENT + "; w -> z; w -> y")
    assert conditional.instruments("x", "y") == {}
    assert conditional.instruments("x", "y", conditional=True) == {"z": frozenset({"w"})}
    weak = CausalGraph.parse("z -> x -> y; c -> x; c -> y")
    (caution,) = weak.check_adjustment("x", "y", ["c", "z"])
    assert "'z' is an instrument" in caution


def test_napkin_is_not_identified_by_adjustment_instrument_or_front_door():
    graph = CausalGraph.parse(NAPKIN)
    assert graph.adjustment_sets("x", "y") == []
    assert graph.front_door_sets("x", "y") == []
    assert graph.instruments("x", "y") == {}
    # w -> z is unconfounded apart from w: z's effect on y has the backdoor z <- w <-> y.
    assert graph.adjustment_sets("z", "y") == sets("w")


def test_a_few_shot_prompts_length_is_refused():
    graph = CausalGraph.parse(FEW_SHOT)
    roles = graph.roles("arm", "score")
    assert roles["difficulty"] == ("confounder",)
    assert roles["reasoning"] == ("mediator", "post-treatment")
    assert roles["prompt_tokens"] == ("post-treatment",)
    assert (roles["arm"], roles["score"]) == (("treatment",), ("outcome",))
    assert graph.check_adjustment("arm", "score", ["difficulty"]) == ()
    with pytest.raises(GraphError, match=r"'prompt_tokens' is post-treatment: .*arm -> prompt_tokens"):
        graph.check_adjustment("arm", "score", ["difficulty", "prompt_tokens"])
    with pytest.raises(GraphError, match=r"'reasoning' is a mediator: .*arm -> reasoning -> score"):
        graph.check_adjustment("arm", "score", ["difficulty", "reasoning"])
    with pytest.raises(GraphError, match=r"leaves the backdoor path arm <- difficulty -> score open"):
        graph.check_adjustment("arm", "score", [])
    with pytest.raises(GraphError, match="'tokens' not in the graph"):
        graph.check_adjustment("arm", "score", ["tokens"])
    with pytest.raises(GraphError, match="'arm' is the treatment"):
        graph.check_adjustment("arm", "score", ["arm"])


def test_selection_on_what_the_outcome_causes_is_refused():
    graph = CausalGraph.parse("x -> y -> s; x -> s; y -> t")
    with pytest.raises(GraphError, match=r"'s' is a collider of treatment and outcome: .*x -> s <- y"):
        graph.check_adjustment("x", "y", ["s"])
    with pytest.raises(GraphError, match="'t' is caused by the outcome"):
        graph.check_adjustment("x", "y", ["t"])
    assert graph.roles("x", "y")["s"] == ("post-outcome", "post-treatment", "collider")


def test_a_proxy_of_an_unobserved_confounder_and_a_precision_variable():
    graph = CausalGraph.parse("z -> x -> y; z <-> y; p -> y; q")
    roles = graph.roles("x", "y")
    assert roles["z"] == ("on a backdoor path",)
    assert roles["p"] == ("precision",)
    assert roles["q"] == ("unrelated",)
    assert graph.adjustment_sets("x", "y") == sets("z")


def test_paths_of_the_butterfly_with_their_state():
    graph = CausalGraph.parse(BUTTERFLY)
    listed = {str(p): (p.kind, p.open, p.blocked_by) for p in graph.paths("x", "y", given="m")}
    assert listed == {
        "x -> y": ("causal", True, ()),
        "x <- m -> y": ("backdoor", False, ("m",)),
        "x <- a -> m -> y": ("backdoor", False, ("m",)),
        "x <- m <- b -> y": ("backdoor", False, ("m",)),
        "x <- a -> m <- b -> y": ("backdoor", True, ()),
    }
    turning = CausalGraph.parse("x -> c <- y; x -> y")
    (path,) = [p for p in turning.paths("x", "y") if p.kind == "non-causal"]
    assert (str(path), path.colliders, path.open) == ("x -> c <- y", ("c",), False)
    with pytest.raises(GraphError, match="more than 2 paths"):
        graph.paths("x", "y", max_paths=2)


def test_too_many_adjustment_sets_is_an_error_and_not_a_hang():
    # Twelve parallel backdoor chains of two: any one of two from each, 2^12 minimal sets.
    text = "x -> y;" + ";".join(f"x <- a{i} <- b{i} -> y" for i in range(12))
    graph = CausalGraph.parse(text)
    assert len(graph.adjustment_sets("x", "y")) == 4096
    with pytest.raises(GraphError, match="more than 100 minimal adjustment sets"):
        graph.adjustment_sets("x", "y", max_sets=100)


def test_names_that_are_wrong_are_named():
    graph = CausalGraph.parse("a -> b; u [latent] -> b")
    for call in (
        lambda: graph.adjustment_sets("a", "q"),
        lambda: graph.d_separated("a", "q"),
        lambda: graph.roles("q", "b"),
        lambda: graph.parents("q"),
        lambda: graph.implications(observed=["q"]),
    ):
        with pytest.raises(GraphError, match="'q' not in the graph"):
            call()
    with pytest.raises(GraphError, match="both 'a'"):
        graph.roles("a", "a")
    with pytest.raises(GraphError, match="'u' is declared unobserved"):
        graph.paths("u", "b")
    with pytest.raises(GraphError, match="'a' is in two"):
        graph.d_separated("a", "b", ["a"])
    with pytest.raises(GraphError, match="both treatment and outcome"):
        graph.to_svg("a")


# --------------------------------------------------------------------------------------------- properties


@st.composite
def graphs(draw, *, most=7, bidirected=False):
    n = draw(st.integers(3, most))
    names = [f"v{i}" for i in draw(st.permutations(range(n)))]
    pairs = list(itertools.combinations(names, 2))
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=2 * n))
    arcs = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=3)) if bidirected else []
    return CausalGraph(nodes=tuple(sorted(names)), directed=tuple(chosen), bidirected=tuple(arcs))


def explicit(graph, *, drop=()):
    """The same graph for networkx, each bidirected edge an unobserved node."""
    digraph = nx.DiGraph()
    digraph.add_nodes_from(graph.nodes)
    digraph.add_edges_from(edge for edge in graph.directed if edge not in set(drop))
    for i, (a, b) in enumerate(graph.bidirected):
        digraph.add_edges_from([(f"latent{i}", a), (f"latent{i}", b)])
    return digraph


def is_valid(graph, x, y, chosen):
    """The adjustment criterion, from its definition."""
    digraph = explicit(graph)
    chosen = set(chosen)
    on_causal = {v for path in nx.all_simple_paths(digraph, x, y) for v in path} - {x}
    if chosen & set().union(*({v} | nx.descendants(digraph, v) for v in on_causal)):
        return False
    first = [(x, v) for v in on_causal if digraph.has_edge(x, v)]
    return nx.is_d_separator(explicit(graph, drop=first), {x}, {y}, chosen)


@settings(max_examples=150, deadline=None)
@given(graphs(bidirected=True), st.data())
def test_d_separation_equals_networkx(graph, data):
    x, y, *rest = data.draw(st.permutations(graph.nodes))
    given_ = set(data.draw(st.lists(st.sampled_from(rest), unique=True)))
    assert graph.d_separated(x, y, given_) == nx.is_d_separator(explicit(graph), {x}, {y}, given_)


@settings(max_examples=100, deadline=None)
@given(graphs(bidirected=True), st.data())
def test_adjustment_sets_are_all_the_minimal_ones_of_brute_force(graph, data):
    x, y, *rest = data.draw(st.permutations(graph.nodes))
    observed = data.draw(st.lists(st.sampled_from(rest), unique=True))
    valid = [
        frozenset(subset)
        for size in range(len(observed) + 1)
        for subset in itertools.combinations(observed, size)
        if is_valid(graph, x, y, subset)
    ]
    minimal = [s for s in valid if not any(other < s for other in valid)]
    found = graph.adjustment_sets(x, y, observed=observed)
    assert set(found) == set(minimal)
    assert found == sorted(found, key=lambda s: (len(s), sorted(s)))


@settings(max_examples=100, deadline=None)
@given(graphs(bidirected=True), st.data())
def test_check_adjustment_agrees_with_the_criterion(graph, data):
    x, y, *rest = data.draw(st.permutations(graph.nodes))
    chosen = data.draw(st.lists(st.sampled_from(rest), unique=True))
    # Stricter than the criterion in one thing: no descendant of the treatment or the outcome.
    after = graph.descendants(x) | graph.descendants(y)
    allowed = is_valid(graph, x, y, chosen) and not after & set(chosen)
    if allowed:
        graph.check_adjustment(x, y, chosen)
    else:
        with pytest.raises(GraphError):
            graph.check_adjustment(x, y, chosen)


@settings(max_examples=100, deadline=None)
@given(graphs(bidirected=True), st.data())
def test_paths_are_open_exactly_where_d_connection_says(graph, data):
    x, y, *rest = data.draw(st.permutations(graph.nodes))
    given_ = data.draw(st.lists(st.sampled_from(rest), unique=True))
    paths = graph.paths(x, y, given=given_)
    assert any(p.open for p in paths) != graph.d_separated(x, y, given_)
    met = {v for p in paths for v in p.colliders}
    named = {v for v, roles in graph.roles(x, y).items() if "collider" in roles}
    assert named == met


@settings(max_examples=100, deadline=None)
@given(graphs(bidirected=True))
def test_implications_hold_and_are_complete(graph):
    implied = {(i.x, i.y): i.given for i in graph.implications()}
    digraph = explicit(graph)
    for x, y in itertools.combinations(graph.nodes, 2):
        rest = [v for v in graph.nodes if v not in {x, y}]
        separable = [
            set(s)
            for size in range(len(rest) + 1)
            for s in itertools.combinations(rest, size)
            if nx.is_d_separator(digraph, {x}, {y}, set(s))
        ]
        adjacent = (x, y) in graph.directed or (y, x) in graph.directed
        assert ((x, y) in implied) == bool(separable and not adjacent)
        if (x, y) in implied:
            assert set(implied[x, y]) in separable
            assert len(implied[x, y]) == min(map(len, separable))


@settings(max_examples=60, deadline=None)
@given(graphs(most=6), st.data())
def test_notations_round_trip(graph, data):
    hidden = frozenset(data.draw(st.lists(st.sampled_from(graph.nodes), unique=True, max_size=2)))
    graph = CausalGraph(nodes=graph.nodes, directed=graph.directed, unobserved=hidden)
    assert CausalGraph.parse(str(graph)) == graph
    assert CausalGraph.from_dot(graph.to_dot()) == graph
    ET.fromstring(graph.to_svg())  # noqa: S314 - our own text


def simulate(graph, coefficients, rng, n):
    """A linear Gaussian model on the graph."""
    columns = {}
    for v in nx.topological_sort(explicit(graph)):
        columns[v] = rng.normal(size=n)
        for a in explicit(graph).predecessors(v):
            columns[v] = columns[v] + coefficients.get((a, v), 1.0) * columns[a]
    return columns


def total_effect(graph, coefficients, x, y):
    return sum(
        np.prod([coefficients[edge] for edge in itertools.pairwise(path)])
        for path in nx.all_simple_paths(explicit(graph), x, y)
    )


@settings(max_examples=25, deadline=None)
@given(graphs(most=6, bidirected=True), st.integers(0, 2**32 - 1), st.data())
def test_regression_on_an_adjustment_set_recovers_the_effect(graph, seed, data):
    x, y, *_ = data.draw(st.permutations(graph.nodes))
    found = graph.adjustment_sets(x, y)
    assume(found)
    rng = np.random.default_rng(seed)
    coefficients = {edge: rng.uniform(0.3, 1.0) * rng.choice([-1, 1]) for edge in graph.directed}
    columns = simulate(graph, coefficients, rng, 4000)
    truth = total_effect(graph, coefficients, x, y)
    for chosen in found:
        design = np.column_stack([np.ones(4000), columns[x], *(columns[v] for v in sorted(chosen))])
        fit, *_ = np.linalg.lstsq(design, columns[y], rcond=None)
        residual = columns[y] - design @ fit
        se = np.sqrt(residual @ residual / 4000 * np.linalg.inv(design.T @ design)[1, 1])
        # Five standard errors: below one failure in a million draws, and any bias of note is dozens.
        assert abs(fit[1] - truth) < 5 * se


# --------------------------------------------------------------------------------------------- against data


def test_implications_are_tested_and_a_wrong_graph_is_caught():
    rng = np.random.default_rng(7)
    n = 800
    a = rng.normal(size=n)
    arm = np.where(a + rng.normal(size=n) > 0, "cot", "direct")
    kind = rng.choice(["math", "code", "law"], size=n)
    y = a + (arm == "cot") + rng.normal(size=n)
    frame = pd.DataFrame({"a": a, "arm": arm, "kind": kind, "y": y, "other": "not looked at"})
    right = CausalGraph.parse("a -> arm -> y; a -> y; kind").test_implications(frame)
    assert {t.label for t in right.parts} == {"a _||_ kind", "arm _||_ kind", "y _||_ kind"}
    assert all(t.p_adjusted > 0.05 for t in right.parts)
    assert right.part("arm _||_ kind").df_numerator == 2
    assert right.verdict == "passes"
    wrong = CausalGraph.parse("a -> arm -> y").test_implications(frame)
    assert wrong.verdict == "fails"
    assert wrong.part("a _||_ y | arm").p_adjusted < 1e-10
    assert wrong.part("a _||_ y | arm").estimate > 0.5


def test_the_test_is_the_t_test_of_a_partial_correlation():
    import statsmodels.api as sm

    rng = np.random.default_rng(3)
    z, w = rng.normal(size=(2, 60))
    x = z + rng.normal(size=60)
    y = z - w + rng.normal(size=60)
    frame = pd.DataFrame({"x": x, "y": y, "z": z, "w": w})
    tests = CausalGraph.parse("z -> x; z -> y; w -> y").test_implications(frame)
    got = tests.part("x _||_ y | z")
    fit = sm.OLS(frame["y"], sm.add_constant(frame[["x", "z"]])).fit()
    assert got.p_value == pytest.approx(fit.pvalues["x"], rel=1e-10)
    assert got.statistic == pytest.approx(fit.tvalues["x"] ** 2, rel=1e-10)
    assert np.sign(got.estimate) == np.sign(fit.tvalues["x"])
    assert (got.df_numerator, got.df) == (1.0, 57.0)
    raw = sorted(t.p_value for t in tests.parts)
    holm = np.maximum.accumulate([min(1, p * (len(raw) - i)) for i, p in enumerate(raw)])
    assert sorted(t.p_adjusted for t in tests.parts) == pytest.approx(list(holm))


def test_wilks_test_equals_manova_for_two_categories():
    from statsmodels.multivariate.manova import MANOVA

    rng = np.random.default_rng(11)
    a = rng.choice(list("pqr"), size=90)
    b = rng.choice(list("stuv"), size=90)
    frame = pd.DataFrame({"a": a, "b": b})
    (got,) = CausalGraph(nodes=("a", "b"), directed=()).test_implications(frame).parts
    left = pd.get_dummies(frame["a"], drop_first=True, dtype=float).to_numpy()
    right = pd.get_dummies(frame["b"], drop_first=True, dtype=float).to_numpy()
    design = np.column_stack([np.ones(90), right])
    hypothesis = [("b", np.eye(4)[1:])]
    table = MANOVA(left, design).mv_test(hypothesis).results["b"]["stat"]
    assert got.p_value == pytest.approx(float(table.loc["Wilks' lambda", "Pr > F"]), rel=1e-8)


def test_holes_and_constants_in_the_table_are_named():
    graph = CausalGraph.parse("a -> b -> c")
    frame = pd.DataFrame(
        {"a": [1.0, 2, 3, 4, 5, 9], "b": [2.0, 1, 4, np.nan, 3, 1], "c": [1.0, 5, 2, 3, 1, 2]}
    )
    with pytest.raises(DataError, match="column 'b' has 1 missing values"):
        graph.test_implications(frame)
    assert [t.n_used for t in graph.test_implications(frame, missing="drop").parts] == [5]
    with pytest.raises(DataError, match="column 'c' is constant"):
        graph.test_implications(frame.fillna(0.0).assign(c=1.0))
    with pytest.raises(DataError, match="column 'a' has 6 infinite"):
        graph.test_implications(frame.fillna(0.0).assign(a=np.inf))
    with pytest.raises(GraphError, match="no variable of the graph is a column"):
        graph.test_implications(pd.DataFrame({"z": [1.0]}))


# --------------------------------------------------------------------------------------------- drawing


def test_the_drawing_says_in_words_what_it_shows():
    graph = CausalGraph.parse('c -> x -> m -> y; c -> y; x <-> y; "q<&"; u [latent] -> y')
    root = ET.fromstring(graph.to_svg("x", "y"))  # noqa: S314 - our own text
    space = {"s": "http://www.w3.org/2000/svg"}
    assert root.get("role") == "img"
    assert root.find("s:title", space).text == "Causal graph for the effect of x on y"
    description = root.find("s:desc", space).text
    assert "c causes x." in description
    assert "x and y share an unobserved cause." in description
    assert "c: confounder." in description
    words = [t.text for t in root.iterfind(".//s:text", space)]
    assert {"x", "treatment", "confounder", "mediator", "q<&", "precision, unobserved"} <= set(words)
    # Causes stand left of their effects.
    left = {}
    for group in root.iterfind("s:g", space):
        left[group.find("s:text", space).text] = float(group.find("s:rect", space).get("x"))
    for a, b in graph.directed:
        assert left[a] < left[b]
    dashed = [p for p in root.iterfind("s:path", space) if p.get("stroke-dasharray")]
    assert len(dashed) == 1


def test_fills_keep_black_text_readable():
    from whyprompt.graph.svg import FILLS

    def luminance(colour):
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    text = luminance("#111111")
    assert min((luminance(fill) + 0.05) / (text + 0.05) for fill in FILLS.values()) > 7


# ------------------------------------------------------------------------------- identification in one result


@settings(max_examples=80, deadline=None)
@given(graphs(most=6, bidirected=True), st.data())
def test_front_door_sets_are_all_the_minimal_ones_of_the_definition(graph, data):
    x, y, *rest = data.draw(st.permutations(graph.nodes))
    digraph = explicit(graph)

    def opens(drop, ends, others, given_):
        cut = explicit(graph, drop=[e for e in graph.directed if e[0] in drop])
        return not nx.is_d_separator(cut, set(ends), set(others), set(given_))

    valid = []
    for size in range(1, len(rest) + 1):
        for subset in itertools.combinations(rest, size):
            chosen = set(subset)
            paths = list(nx.all_simple_paths(digraph, x, y))
            if not paths or any(not chosen & set(path) for path in paths):
                continue
            if opens({x}, {x}, chosen, ()) or opens(chosen, chosen, {y}, {x}):
                continue
            valid.append(frozenset(subset))
    minimal = {s for s in valid if not any(other < s for other in valid)}
    assert set(graph.front_door_sets(x, y)) == minimal


@settings(max_examples=80, deadline=None)
@given(graphs(most=6, bidirected=True), st.data())
def test_instruments_are_those_of_the_definition(graph, data):
    x, y, *rest = data.draw(st.permutations(graph.nodes))
    digraph = explicit(graph)
    paths = list(nx.all_simple_paths(digraph, x, y))
    on_causal = {v for path in paths for v in path} - {x}
    cut = explicit(graph, drop=[(x, v) for v in on_causal if digraph.has_edge(x, v)])
    after = nx.descendants(digraph, x) | nx.descendants(digraph, y)
    free = [v for v in rest if v not in after]

    def works(v, given_):
        return nx.is_d_separator(cut, {v}, {y}, given_) and not nx.is_d_separator(digraph, {v}, {x}, given_)

    expected = {v for v in free if paths and works(v, set())}
    assert set(graph.instruments(x, y)) == expected
    for name, needed in graph.instruments(x, y, conditional=True).items():
        assert works(name, set(needed))
        # No smaller set of those tried works: minimal.
        for size in range(len(needed)):
            for subset in itertools.combinations(sorted(needed), size):
                assert not nx.is_d_separator(cut, {name}, {y}, set(subset))


@pytest.mark.parametrize(
    ("text", "strategy", "words"),
    [
        ("x -> y", "nothing to adjust for", "identified without adjustment"),
        ("c -> x -> y; c -> y", "adjustment", "by adjusting for {c}. Open without adjustment: x <- c -> y."),
        (FRONT_DOOR, "front-door", "by the front door through {m}"),
        (INSTRUMENT, "instrument", "'z' is an instrument"),
        ("x -> y; x <-> y", "none", "run both arms on the same items"),
        ("y -> x", "no effect", "no causal path joins them"),
    ],
)
def test_identification_names_the_strategy(text, strategy, words):
    graph = CausalGraph.parse(text)
    found = graph.identify("x", "y")
    assert found.strategy == strategy
    assert words in found.sentence
    assert str(found) == found.sentence
    assert found.paths == graph.paths("x", "y")
    assert found.adjustment_sets == tuple(graph.adjustment_sets("x", "y"))
    table = found.to_frame()
    assert list(table["path"]) == [str(p) for p in found.paths]
    json.dumps(found.to_dict())
    ET.fromstring(found.svg)  # noqa: S314 - our own text


def test_front_door_paths_are_listed_and_what_is_too_much_is_said():
    found = CausalGraph.parse(FRONT_DOOR).identify("x", "y")
    assert [str(p) for p in found.front_door_paths] == ["x -> m -> y"]
    assert "Never adjust for m" in found.sentence
    many = CausalGraph.parse("x -> y; x <- c -> y; x <- d -> y").identify("x", "y", max_paths=2)
    assert many.paths == ()
    assert "Not looked at: paths: more than 2 paths" in many.sentence
    assert many.strategy == "adjustment"


def test_paths_are_drawn_by_kind_and_told_in_words():
    graph = CausalGraph.parse("x -> m -> y; c -> x; c -> y; x -> s; y -> s; x <-> y; z")
    space = {"s": "http://www.w3.org/2000/svg"}
    root = ET.fromstring(graph.to_svg("x", "y", given="c"))  # noqa: S314 - our own text
    strokes = [p.get("stroke") for p in root.iterfind("s:path", space)]
    # x -> m -> y is causal; x <-> y stays open; the paths over c and s are blocked.
    assert sorted(strokes) == sorted(["#0072b2"] * 2 + ["#d55e00"] + ["#9a9a9a"] * 4)
    words = [t.text for t in root.iterfind(".//s:text", space)]
    assert {"on a causal path", "on an open path that is not causal", "on blocked paths only"} <= set(words)
    assert "on no path between the two" not in words
    told = root.find("s:desc", space).text
    assert "Causal path: x -> m -> y." in told
    assert "Open path that is not causal: x <-> y." in told
    assert "x <- c -> y" not in told
    free = ET.fromstring(graph.to_svg("x", "y", given=()))  # noqa: S314 - our own text
    assert "Open path that is not causal: x <- c -> y." in free.find("s:desc", space).text
    with pytest.raises(GraphError, match="name both"):
        graph.to_svg(given=())


def test_the_tests_of_a_graph_have_a_sentence_and_a_table():
    rng = np.random.default_rng(7)
    a, c = rng.normal(size=(2, 500))
    b = a + c + rng.normal(size=500)
    frame = pd.DataFrame({"a": a, "b": b, "c": c})
    right = CausalGraph.parse("a -> b <- c").test_implications(frame)
    assert "None of the 1 independencies that the graph implies is contradicted" in right.sentence
    wrong = CausalGraph.parse("a -> c; b").test_implications(frame)
    assert "2 of the 2 independencies that the graph implies are contradicted" in str(wrong)
    table = wrong.to_frame()
    assert list(table["label"]) == [t.label for t in wrong.parts]
    assert json.loads(json.dumps(wrong.to_dict()))["parts"][0]["n_used"] == 500
    full = CausalGraph.parse("a -> b -> c; a -> c").test_implications(frame)
    assert (
        full.sentence
        == "The graph implies no independence among these columns, so data cannot contradict it."
    )


@pytest.mark.parametrize("read", [CausalGraph.parse, CausalGraph.from_dot, CausalGraph.from_gml])
def test_what_is_no_text_is_named(read):
    with pytest.raises(GraphError, match="a graph is read from text, not from NoneType"):
        read(None)


def test_a_big_graph_and_names_with_spaces_are_read_and_answered():
    text = "; ".join(f'"task {i}" -> "task {j}"' for i in range(40) for j in range(i + 1, 40))
    graph = CausalGraph.parse(text)
    assert len(graph.nodes) == 40
    (only,) = graph.adjustment_sets("task 20", "task 39")
    assert only == {f"task {i}" for i in range(20)}
    assert graph.check_adjustment("task 20", "task 39", only) == ()
    assert CausalGraph.from_dot(graph.to_dot()).nodes == graph.nodes
