"""A scan that is killed anywhere and started again is the scan that was never killed; its table by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas
import pytest
import torch
from typer.testing import CliRunner

from editlab.analysis.outcomes import foresights
from editlab.analysis.scanned import read_scan
from editlab.analysis.scores import wilson
from editlab.analysis.single_edits import single_edits
from editlab.cli import app
from editlab.core.disk import JsonLines
from editlab.core.errors import Cancelled
from editlab.core.facts import Fact
from editlab.core.paths import resource
from editlab.core.progress import Progress
from editlab.editing.editor import Editor
from editlab.experiments.scan import Scanner, choose, scan
from editlab.measures.perplexity import HealthProbe, perplexity, window_nll
from editlab.methods import adjusted
from editlab.methods.rome import ROME
from editlab.model.reading import object_nlls
from editlab.session.session import Session
from tests.conftest import GOLDEN

MORE = [
    Fact("{} is in the continent of", "France", "Asia", "Europe", relation="P30", case_id=1),
    Fact("The capital of {} is", "Italy", "Paris", "Rome", relation="P36", case_id=2),
    Fact("{} was born in", "Hilary Hahn", "Berlin", relation="P19", case_id=3),
]


@pytest.fixture
def start(gpt2_editor: Editor, facts: list[Fact]) -> Callable[..., pandas.DataFrame]:
    """Starts, or goes on with, a scan of six facts in a folder."""
    gpt2_editor.model.write([])

    def begin(folder: Path, report: Callable[[Progress], None] = lambda _: None, **changes: int) -> pandas.DataFrame:
        method = adjusted(gpt2_editor.method("rome"), {"steps": 3, **changes})
        return scan(Scanner(gpt2_editor, method, 40), [*facts, *MORE], folder, report)

    yield begin
    assert gpt2_editor.model.lowest_edited == gpt2_editor.model.n_layers


def same(one: pandas.DataFrame, other: pandas.DataFrame) -> None:
    """But for seconds; a batch of other rows rounds otherwise."""
    pandas.testing.assert_frame_equal(one.drop(columns="seconds"), other.drop(columns="seconds"), rtol=1e-3, atol=1e-6)


def test_rows_are_what_each_edit_alone_does(
    start: Callable, gpt2_editor: Editor, facts: list[Fact], tmp_path: Path
) -> None:
    frame = start(tmp_path)
    model, method = gpt2_editor.model, adjusted(gpt2_editor.method("rome"), {"steps": 3})
    ids = HealthProbe(model, 40, 2)._entering.shape[1]
    text = model.tokenizer(resource("perplexity.txt").read_text(), add_special_tokens=False)["input_ids"][:ids]
    base = perplexity([window_nll(model, text)])
    for (_, row), fact in zip(frame.iterrows(), [*facts, *MORE], strict=True):
        edit, trace, _ = gpt2_editor.compute([fact], method)
        model.write([edit])
        try:
            now = perplexity([window_nll(model, text)])
            nll = object_nlls(model, [(fact.text, fact.target_new)])[0]
        finally:
            model.write([])
        assert row.perplexity == pytest.approx(now, rel=1e-3)
        assert row.perplexity_ratio == pytest.approx(now / base, rel=1e-3)
        assert row.disabling == (now / base >= 2)
        assert row.p_new == pytest.approx(math.exp(-nll), rel=1e-3)
        assert row.delta_norm == pytest.approx(trace.layers[2].delta_norm, rel=1e-3)
        assert row.divisor == pytest.approx(trace.layers[2].divisor, rel=1e-3)
    assert pandas.isna(frame.efficacy_success[5])  # a fact without a true object
    same(frame, pandas.read_parquet(tmp_path / "scan.parquet"))


class Killed(BaseException):
    """What ends a process: no one catches it."""


def test_killed_at_every_fact_it_ends_as_if_it_had_not_been(
    start: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = start(tmp_path / "whole")
    made: list[str] = []
    real = ROME.__call__

    def dying(self: ROME, model: object, facts: list[Fact], **rest: object) -> object:
        if facts[0].subject not in made:
            made.append(facts[0].subject)
            raise Killed
        return real(self, model, facts, **rest)

    monkeypatch.setattr(ROME, "__call__", dying)
    starts = 0
    while starts <= len(whole):
        try:
            resumed = start(tmp_path / "killed")
            break
        except Killed:
            starts += 1
            with (tmp_path / "killed" / "scan.jsonl").open("a") as file:
                file.write('{"number": 0, "cut o')
    assert starts == len(whole)
    same(resumed, whole)
    assert len((tmp_path / "killed" / "scan.jsonl").read_text().splitlines()) == len(whole)


def test_cancelled_by_its_report_it_goes_on(start: Callable, tmp_path: Path) -> None:
    def cancelling(progress: Progress) -> None:
        if progress.done == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        start(tmp_path, cancelling)
    assert len(JsonLines(tmp_path / "scan.jsonl").read()) == 2
    told: list[Progress] = []
    assert len(start(tmp_path, told.append)) == 6
    scanning = [each for each in told if each.stage == "scanning"]
    assert {each.total for each in scanning} == {4}
    assert scanning[-1].done == 4


def test_a_folder_of_another_scan_is_refused(start: Callable, tmp_path: Path) -> None:
    start(tmp_path)
    before = (tmp_path / "scan.parquet").read_bytes()
    with pytest.raises(ValueError, match=r"other settings \(hyperparameters\); choose an empty folder"):
        start(tmp_path, steps=2)
    assert (tmp_path / "scan.parquet").read_bytes() == before


def test_a_damaged_or_untold_scan_is_not_gone_on_with(start: Callable, tmp_path: Path) -> None:
    start(tmp_path / "scan")
    rows, settings = tmp_path / "scan" / "scan.jsonl", tmp_path / "scan" / "scan.json"
    whole, told = rows.read_bytes(), settings.read_bytes()
    for content in (b"{}\n", b"[1]\n", b"{\n"):
        rows.write_bytes(whole + content)
        with pytest.raises(ValueError, match=r"scan\.jsonl.* is damaged"):
            start(tmp_path / "scan")
    rows.write_bytes(whole)
    settings.write_bytes(told[:9])
    with pytest.raises(ValueError, match=r"scan\.json is damaged"):
        start(tmp_path / "scan")
    settings.unlink()
    with pytest.raises(ValueError, match=r"its scan\.json is gone; choose an empty folder"):
        start(tmp_path / "scan")


def test_the_probe_is_the_plain_perplexity_of_its_tokens(editor: Editor) -> None:
    model = editor.model
    text = model.tokenizer(resource("perplexity.txt").read_text(), add_special_tokens=False)["input_ids"][:30]
    with torch.no_grad():
        assert HealthProbe(model, 30, 2)() == pytest.approx(perplexity([window_nll(model, text)]), rel=1e-4)


@pytest.mark.parametrize(
    ("where", "cases"),
    [
        ([], [1, 2, 3]),
        (["relation=P36"], [2]),
        (["relation=P36,P19"], [2, 3]),
        (["case_id=1, 3", "relation=P30"], [1]),
        (["case_id=1 3"], [1, 3]),
        (["relation=P1"], []),
    ],
)
def test_where_keeps_what_fulfils_every_condition(gpt2_editor: Editor, where: list[str], cases: list[int]) -> None:
    assert [fact.case_id for fact in choose(gpt2_editor.model, MORE, where)] == cases
    assert [fact.case_id for fact in choose(gpt2_editor.model, MORE, where, 1)] == cases[:1]


def test_where_counts_the_model_s_own_tokens(gpt2_editor: Editor) -> None:
    model = gpt2_editor.model
    for fact in MORE:
        end = len(model.tokenizer(fact.text[: fact.subject_end])["input_ids"]) - 1
        assert fact in choose(model, MORE, [f"position={end}"])
        assert fact not in choose(model, MORE, [f"position={end + 1}"])


@pytest.mark.parametrize("text", ["relation", "relation=", "colour=red", "=3"])
def test_where_refuses_what_it_does_not_know(gpt2_editor: Editor, text: str) -> None:
    with pytest.raises(ValueError, match="--where takes NAME=VALUE with a name of relation, case_id"):
        choose(gpt2_editor.model, MORE, [text])


def test_where_reads_values_from_a_file(gpt2_editor: Editor, tmp_path: Path) -> None:
    known = [fact.case_id for fact in MORE]
    file = tmp_path / "cases.txt"
    file.write_text(f"{known[1]}\n{known[0]}, 999999\n", encoding="utf-8")
    assert [fact.case_id for fact in choose(gpt2_editor.model, MORE, [f"case_id=@{file}"])] == known[:2]
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert [fact.case_id for fact in choose(gpt2_editor.model, MORE, [f"case_id=@{file}"])] == known[:2]
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"cases\.txt cannot be read as text"):
        choose(gpt2_editor.model, MORE, [f"case_id=@{file}"])
    with pytest.raises(ValueError, match=r"none\.txt: no such file"):
        choose(gpt2_editor.model, MORE, [f"case_id=@{tmp_path / 'none.txt'}"])


def test_a_relation_may_be_several_words(gpt2_editor: Editor) -> None:
    named = [
        replace(fact, relation=name) for fact, name in zip(MORE, ("mother tongue", "mother", "tongue"), strict=True)
    ]
    for where, cases in (("mother tongue", [1]), ("mother, mother tongue", [1, 2]), ("tongue", [3])):
        assert [fact.case_id for fact in choose(gpt2_editor.model, named, [f"relation={where}"])] == cases


def test_a_fact_that_the_model_cannot_take_is_left_out(gpt2_editor: Editor, caplog: pytest.LogCaptureFixture) -> None:
    long = Fact("{} is " + "very " * 110, "He", "tall", "small", case_id=9)
    assert choose(gpt2_editor.model, [long, MORE[0]]) == [MORE[0]]
    assert "case 9 is left out" in caplog.text


def test_foresight_by_hand() -> None:
    """Ten facts: keys ring high at 0 to 3 of which 0 to 2 disable; 4 disables unforeseen and is raised."""
    frame = pandas.DataFrame(
        {
            "token_level": ["high"] + ["low"] * 9,
            "level": ["high"] * 4 + ["raised"] * 2 + ["low"] * 4,
            "disabling": [True, True, True, False, True] + [False] * 5,
        }
    )
    tokens_raised, tokens, either, keys = foresights(frame)
    assert tokens_raised.foreseen == tokens.foreseen == 1
    assert (keys.rule, keys.alarm, keys.n, keys.disabling) == ("keys", "high", 10, 4)
    assert (keys.foreseen, keys.missed, keys.false_alarms, keys.precision, keys.recall) == (3, 1, 1, 0.75, 0.75)
    # Wilson for 3 of 4: (0.75 + z²/8 ± z·sqrt(0.75·0.25/4 + z²/64)) / (1 + z²/4), z = 1.96
    assert keys.recall_interval == (pytest.approx(0.3006, abs=1e-4), pytest.approx(0.9544, abs=1e-4))
    assert (either.foreseen, either.missed, either.false_alarms) == (4, 0, 2)
    healthy = foresights(frame.assign(disabling=False, level="low", token_level="low"))[0]
    assert (healthy.precision, healthy.recall, healthy.recall_interval) == (None, None, None)


def test_the_command_scans_and_prints_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITLAB_CACHE", str(tmp_path / "cache"))
    text = tmp_path / "moments.txt"
    text.write_text(resource("smollm2-135m-sample.txt").read_text()[:20_000])
    out = tmp_path / "out"
    options = ("--model", str(GOLDEN), "--source", str(text), "--limit", "2", "--out", str(out), "--probe-tokens", "20")
    done = CliRunner().invoke(app, ["scan", "--method", "r-rome", *options, "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["facts"] == 2
    assert [(each["rule"], each["alarm"]) for each in told["risk"]] == [
        ("tokens", "raised"),
        ("tokens", "high"),
        ("keys", "raised"),
        ("keys", "high"),
    ]
    assert len(pandas.read_parquet(out / "scan.parquet")) == 2
    refused = CliRunner().invoke(app, ["scan", "--method", "rome", *options])
    assert refused.exit_code == 2
    assert "holds a scan with other settings" in refused.stderr


def test_a_standard_scan_takes_the_fields_measures_of_each_edit_alone(
    gpt2_editor: Editor, facts: list[Fact], tmp_path: Path
) -> None:
    """Rows as a session that makes the one edit measures it; the unedited weights stay, and a killed scan goes on."""
    editor, some = gpt2_editor, [facts[0], MORE[2]]
    method = adjusted(editor.method("rome"), {"steps": 3})

    def stop(progress: Progress) -> None:
        if progress.stage == "scanning" and progress.done == 1:
            raise Cancelled

    with pytest.raises(Cancelled):
        scan(Scanner(editor, method, 40, standard=True), some, tmp_path / "scan", stop)
    assert len(JsonLines(tmp_path / "scan" / "scan.jsonl").read()) == 1
    frame = scan(Scanner(editor, method, 40, standard=True), some, tmp_path / "scan")
    assert editor.model.lowest_edited == editor.model.n_layers
    with pytest.raises(ValueError, match="other settings"):
        scan(Scanner(editor, method, 40, standard=False), [facts[1]], tmp_path / "scan")
    session = Session(editor, watches_facts=False)
    for fact, row in zip(some, frame.itertuples(), strict=True):
        session.goto(0)
        session.edit(fact, "rome", {"steps": 3})
        counterfact, says = session.find("counterfact"), session.find("says_it")
        assert row.efficacy_accuracy == counterfact.efficacy.accuracy
        assert (row.answer, row.says_it) == (says.answers[0].answer, says.rewrite.said)
        if fact.paraphrase_prompts:
            assert (row.paraphrase_success, row.paraphrase_says_it) == (
                counterfact.paraphrase.success,
                says.paraphrase.said,
            )
            assert row.neighborhood_success == counterfact.neighborhood.success
        else:
            assert math.isnan(row.paraphrase_success)
    session.goto(0)
    editor.model.write([])
    again = read_scan(tmp_path / "scan" / "scan.parquet")
    assert [row.answer for row in again.rows] == frame["answer"].tolist()
    assert (again.rows[0].says_it, again.rows[1].paraphrase_success) == (frame["says_it"][0], None)


def test_the_table_of_single_edits_by_hand() -> None:
    frame = pandas.DataFrame(
        {
            "efficacy_success": pandas.array([True, True, False, None], dtype="boolean"),
            "paraphrase_success": [1.0, 0.5, 0.0, math.nan],
            "neighborhood_success": [0.4, 0.8, math.nan, math.nan],
            "efficacy_accuracy": [True, True, True, True],
            "says_it": pandas.array([None] * 4, dtype="boolean"),
            "paraphrase_says_it": [math.nan] * 4,
            "neighborhood_says_it": [0.0] * 4,
        }
    )
    found = {each.name: each for each in single_edits(frame)}
    assert {name: (each.n, round(each.value, 6)) for name, each in found.items()} == {
        "efficacy_success": (3, round(2 / 3, 6)),
        "paraphrase_success": (3, 0.5),
        "neighborhood_success": (2, 0.6),
        "score": (2, round(3 / (1 + 1 / 0.75 + 1 / 0.6), 6)),
        "efficacy_accuracy": (4, 1.0),
        "neighborhood_says_it": (4, 0.0),
    }
    assert found["efficacy_success"].interval == wilson(2, 3)
    assert found["paraphrase_success"].interval == (0.0, 1.0)
    low, high = found["neighborhood_success"].interval
    assert (low, high) == (0.4, 0.8)
