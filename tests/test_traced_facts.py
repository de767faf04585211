"""Averages of traces over facts, and the rank correlation with a sweep."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy
import pytest
from scipy.stats import pearsonr, spearmanr, t

from editlab.analysis.swept import Agreement, average_of_sweeps
from editlab.analysis.traced import (
    AFTER,
    FIRST,
    FURTHER,
    LAST,
    LAST_OF_SUBJECT,
    MIDDLE,
    average_of,
    best_layer,
    group_of,
    interval,
    rank_correlation,
)
from editlab.cli import app
from editlab.core.facts import Fact
from editlab.core.inside import BLOCK, MLP, NEW, SAID, TRUE, CausalTrace, LayerSweep, SweptLayer
from editlab.experiments.tracing import FactSweeper, FactTracer, settings_of, trace_facts
from editlab.inside.corruption import replacements
from editlab.inside.facts import FactTrace, answer_of
from editlab.model.reading import next_token
from editlab.session.session import Session
from tests.conftest import GOLDEN, tiny_editor, tiny_model

PROMPT = "The mother tongue of {} is"
FIRST_NAMES = ["Ann", "Bob", "Carl", "Dan", "Eva", "Fred", "Gus", "Hal"]
LAST_NAMES = ["Lee", "Ray", "Max", "Roe", "Lind", "Hall", "Bell", "Ford"]
NAMES = [f"{first} {last}" for first in FIRST_NAMES for last in LAST_NAMES]


def trace_of(scores: list[list[float]], subject: tuple[int, int], clean: float = 0.5, low: float = 0.1) -> CausalTrace:
    grid = tuple(map(tuple, scores))
    return CausalTrace(
        "noise", BLOCK, 1, ("x",) * len(grid), subject, "y", clean, low, grid, grid, 10, True
    )  # fmt: skip


def known_facts() -> list[Fact]:
    """Facts that the random model knows: the true object is what it says."""
    model, found = tiny_model("gpt2"), []
    for subject in NAMES:
        text = PROMPT.replace("{}", subject)
        said = next_token(model, text)
        word = model.token_text(said).strip()
        if word.isalnum() and model.target_ids(word, text)[0] == said:
            found.append(Fact(PROMPT, subject, "English", word, relation="P103"))
    return found


def test_each_token_is_in_one_group() -> None:
    assert [group_of(i, (2, 5), 8) for i in range(8)] == [
        None, None, FIRST, MIDDLE, LAST_OF_SUBJECT, AFTER, FURTHER, LAST,
    ]  # fmt: skip
    assert [group_of(i, (0, 1), 2) for i in range(2)] == [LAST_OF_SUBJECT, LAST]
    assert [group_of(i, (1, 3), 3) for i in range(3)] == [None, FIRST, LAST]


def test_a_long_subject_weighs_no_more_than_a_short_one() -> None:
    long = trace_of([[0.2, 0.2], [0.3, 0.5], [0.5, 0.7], [0.4, 0.4], [0.1, 0.9]], (0, 4), low=0.1)
    short = trace_of([[0.1, 0.1], [0.8, 0.1], [0.3, 0.3], [0.2, 0.6]], (0, 3), low=0.2)
    average = average_of([long, short])
    by_group = {group.group: group for group in average.groups}
    assert list(by_group) == [FIRST, MIDDLE, LAST_OF_SUBJECT, LAST]
    assert by_group[MIDDLE].means == pytest.approx(((0.3 + 0.6) / 2, (0.5 - 0.1) / 2))
    assert (by_group[MIDDLE].facts, by_group[MIDDLE].peak) == (2, 0)
    assert average.total == pytest.approx((0.4 + 0.3) / 2)


def test_intervals_are_students() -> None:
    values = [0.2, 0.5, 0.1, 0.9, 0.4]
    mean, width = interval(values)
    low, high = t.interval(0.95, 4, loc=mean, scale=0.3114482300479487 / 5**0.5)
    assert (mean - width, mean + width) == pytest.approx((low, high))
    assert interval([0.3]) == (0.3, 0.0)


def test_rank_correlation_is_scipys_ties_included() -> None:
    draw = random.Random(1)
    for _ in range(20):
        one, other = ([draw.randrange(6) for _ in range(12)] for _ in range(2))
        assert rank_correlation(one, other) == pytest.approx(spearmanr(one, other).statistic)
    assert rank_correlation([1, 1, 1], [1, 2, 3]) is None


def swept(p_new: Sequence[Sequence[float]], layers: Sequence[int]) -> list[LayerSweep]:
    """Sweeps with these P(new), facts × layers."""
    return [
        LayerSweep("rome", tuple(SweptLayer(layer, p, None, p > 0.5, None, p, 0.1, None) for layer, p in pairs))
        for pairs in (zip(layers, row, strict=True) for row in p_new)
    ]


def agreement_of(
    effects: Sequence[Sequence[float]], p_new: Sequence[Sequence[float]], layers: Sequence[int]
) -> Agreement:
    """The agreement of effects at every layer and P(new) at some layers, facts × layers."""
    traces = [[trace_of([[0.1 + e for e in row], [0.1] * len(row)], (0, 1))] for row in effects]
    return average_of_sweeps(swept(p_new, layers), traces).agreements[0]


def test_sweeps_and_traces_are_compared_as_regressions_do() -> None:
    draw, layers = numpy.random.default_rng(3), [0, 2, 3]
    effects, p_new = draw.random((6, 5)), draw.random((6, 3)) / 2 + [0.0, 0.2, 0.4]
    found, x, y = agreement_of(effects.tolist(), p_new.tolist(), layers), effects[:, layers], p_new
    of_layer = numpy.tile(numpy.eye(3), (6, 1))

    def r2(*columns: numpy.ndarray) -> float:
        design, score = numpy.column_stack(columns), y.ravel()
        left = score - design @ numpy.linalg.lstsq(design, score, rcond=None)[0]
        return float(1 - left.var() / score.var())

    each = x.ravel()[:, None]
    assert found.r2_layer == pytest.approx(r2(of_layer))
    assert found.r2_effect == pytest.approx(r2(numpy.ones_like(each), each))
    assert found.r2_both == pytest.approx(r2(of_layer, of_layer * each))
    assert found.over_facts == pytest.approx([pearsonr(*pair).statistic for pair in zip(x.T, y.T, strict=True)])
    ranked = [spearmanr(*pair).statistic for pair in zip(x, y, strict=True)]
    assert (found.over_layers, found.interval) == pytest.approx(interval(ranked))
    few = p_new[:4].tolist()
    shuffled = [agreement_of(effects[list(order)].tolist(), few, layers) for order in permutations(range(4))]
    assert shuffled[0].r2_chance == pytest.approx(numpy.mean([each.r2_both for each in shuffled]))


def test_the_averages_of_a_sweep_leave_out_what_is_constant_or_missing() -> None:
    traces = [[trace_of([[0.1, 0.3, 0.1]] * 2, (0, 1))]] * 2
    average = average_of_sweeps(swept([[0.2, 0.5], [0.6, 0.5]], [1, 2]), traces)
    first, second = average.layers
    assert (first.p_new, first.interval) == pytest.approx(interval([0.2, 0.6]))
    assert (first.says_new, first.paraphrases, first.unrelated) == (0.5, None, pytest.approx(0.4))
    assert (second.layer, second.says_new) == (2, 0.0)
    found = average.agreements[0]
    assert (found.over_facts, found.over_layers, found.ranked) == ((None, None), 0.0, 2)
    assert found.r2_both == found.r2_layer == found.r2_chance
    assert agreement_of([[0.1, 0.2]], [[0.5, 0.5]], [0, 1]).r2_layer is None


def test_the_best_layer_says_the_new_object_and_disturbs_least() -> None:
    row = SweptLayer(0, 0.4, 0.1, True, 0.5, 0.5, 0.3, None)
    rows = [replace(row, layer=i, **changed) for i, changed in enumerate((
        {"says_new": False, "paraphrases": 1.0}, {}, {"relative_size": 0.2}, {"unrelated": 0.25}
    ))]  # fmt: skip
    assert best_layer(rows) == 2


def test_a_facts_trace_tells_its_settings_and_what_it_is_about() -> None:
    model, fact = tiny_model("gpt2"), known_facts()[0]
    answers = [answer_of(model, fact, each) for each in (TRUE, NEW, SAID)]
    assert answers[1] == model.target_ids("English", fact.text)[0]
    found = FactTrace(model, fact, answers[2], MLP, 3)()
    assert CausalTrace.from_json(found.to_json()) == found
    assert (found.runs, found.known, found.window) == (10, True, 3)
    assert "".join(found.tokens[slice(*found.subject)]).strip() == fact.subject
    assert found == FactTrace(model, fact, answers[2], MLP, 3)()
    assert found.low < 1
    with pytest.raises(ValueError, match="the fact has no true object to trace"):
        answer_of(model, replace(fact, target_true=None), TRUE)


def test_replacements_are_other_subjects_of_as_many_tokens_that_the_model_knows() -> None:
    model, facts = tiny_model("gpt2"), known_facts()
    found = {}
    for fact in facts:
        with suppress(ValueError):
            found[fact] = replacements(model, fact, answer_of(model, fact, TRUE), facts)
    assert found
    for fact, others in found.items():
        n, answer = len(model.tokens(fact.text).ids), answer_of(model, fact, TRUE)
        for other in others:
            assert other.subject in NAMES
            assert other.subject != fact.subject
            assert len(other.ids) == n
            assert next_token(model, fact.prompt.replace("{}", other.subject)) == other.foil != answer
        trace = FactTrace(model, fact, answer, replacements=others)()
        assert (trace.corruption, trace.low, trace.runs) == ("replacement", 0.0, len(others))
        assert trace.clean == pytest.approx(1.0)
        assert trace.scores[-1][-1] == pytest.approx(1.0, abs=1e-5)
    with pytest.raises(ValueError, match=r"no other subject to replace '.*' by: the fact has no relation"):
        replacements(model, replace(facts[0], relation=None), -1, facts)


def test_a_run_over_facts_resumes_and_leaves_out_what_the_model_does_not_know(tmp_path: Path) -> None:
    model, facts = tiny_model("gpt2"), known_facts()
    unknown = replace(facts[1], target_true="French", subject="OK Go")
    given = [facts[0], unknown, *facts[1:3]]
    settings = settings_of([BLOCK, MLP], [4, 1])
    assert settings == [(BLOCK, 1), (MLP, 4), (MLP, 1)]
    editor = tiny_editor("gpt2")
    tracer = FactTracer(model, kinds=settings, sweeper=FactSweeper(editor, "rome", every=2))
    trace_facts(tracer, given, 1, tmp_path)
    averages = trace_facts(tracer, given, 3, tmp_path)
    resumed, sweep = averages.traces, averages.sweep
    assert [each.facts for each in resumed] == [3, 3, 3]
    lines = [json.loads(line) for line in (tmp_path / "trace.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(line["number"], line["why"]) for line in lines] == [
        (0, ""), (1, "the model does not know it"), (2, ""), (3, ""),
    ]  # fmt: skip
    rows = (tmp_path / "averages.csv").read_text(encoding="utf-8").splitlines()
    assert rows[0] == "corruption,kind,window,group,facts,layer,effect,±"
    assert len(rows) - 1 == sum(len(group.means) for each in resumed for group in each.groups)
    drawn = (tmp_path / "noise-mlp-4.svg").read_text(encoding="utf-8")
    assert drawn.startswith("<svg")
    assert ">layer</text>" in drawn
    assert sweep is not None
    assert ([each.layer for each in sweep.layers], sweep.facts) == ([1, 3], 3)
    assert [each.name for each in sweep.agreements] == [each.name for each in resumed]
    alone = Session(editor).sweep(given[0], "rome").layers[::2]
    assert LayerSweep.from_json(lines[0]["sweep"]).layers == alone
    header, *rows = (tmp_path / "sweep.csv").read_text(encoding="utf-8").splitlines()
    assert header.endswith("r noise-block-1,r noise-mlp-4,r noise-mlp-1")
    assert [row.split(",")[:3] for row in rows] == [["rome", "3", str(layer)] for layer in (1, 3)]
    assert (tmp_path / "sweep.svg").read_text(encoding="utf-8").startswith("<svg")
    with pytest.raises(ValueError, match=r"holds traces with other settings \(settings, sweep\)"):
        trace_facts(FactTracer(model), given, 3, tmp_path)
    for other in (given[1:], [replace(given[0], target_true="Rome"), *given[1:]]):
        with pytest.raises(ValueError, match=r"holds traces with other settings \(facts\)"):
            trace_facts(tracer, other, 3, tmp_path)


def test_the_command_traces_one_fact_and_an_average(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    fact = known_facts()[0]
    (tmp_path / "facts.json").write_text(json.dumps([{
        "case_id": 1, "requested_rewrite": {"prompt": fact.prompt, "subject": fact.subject, "target_new":
        {"str": "English"}, "target_true": {"str": fact.target_true}}, "paraphrase_prompts": [],
        "neighborhood_prompts": [],
    }]), encoding="utf-8")  # fmt: skip
    run = CliRunner().invoke
    file = ["--facts", str(tmp_path / "facts.json"), "--model", str(GOLDEN)]
    one = run(app, ["trace", *file, "--case-id", "1", "--json"])
    assert one.exit_code == 0, one.output
    (trace,) = json.loads(one.stdout)["traces"]
    assert (trace["kind"], trace["known"]) == ("block", True)
    many = run(app, ["trace", *file, "--n", "5", "--out", str(tmp_path / "out"), "--kind", "block"])
    assert many.exit_code == 0, many.output
    assert "block, window 1, noise: 1 facts" in many.stdout
