"""Every measure against a case worked out by hand, and batches against one prompt at a time."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from editlab.analysis.chances import chance
from editlab.analysis.history import broken_between, first_broken, first_forgotten, forgotten_between, recall_map
from editlab.analysis.table import rows_of
from editlab.core.facts import Fact
from editlab.core.progress import quiet
from editlab.core.records import Step
from editlab.editing.editor import Editor
from editlab.measures import EditedFact, MeasureInput, Measures, State, StateCache, standard
from editlab.measures._measure import fixed_sample
from editlab.measures.bleeding import BleedingOfPanel, BleedingOfSample, bleeding
from editlab.measures.counterfact import OfAll, counterfact
from editlab.measures.generation import GenerationEntropy, generation_entropy, ngram_entropy, sampled_texts, words
from editlab.measures.perplexity import PerplexityOfText, perplexity, window_nll
from editlab.measures.retention import RetentionOfEdits, retention
from editlab.model import reading
from editlab.model.reading import ObjectScore, complete, object_scores, watched_of
from editlab.report.html import NOTHING, percent
from editlab.session.session import Session
from tests.conftest import tiny_editor


def likely(p: float, said: bool = False) -> ObjectScore:
    return ObjectScore(-math.log(p), said)


ONE = Fact("{} is in", "Rome", "Spain", "Italy", ("Where is Rome? In", "Rome lies in"), ("Milan is in", "Turin is in"))
TWO = Fact("{} speaks", "Ada", "Greek", "English")
SCORES = {
    ("Rome is in", "Spain"): likely(0.6, True),
    ("Rome is in", "Italy"): likely(0.1),
    ("Where is Rome? In", "Spain"): likely(0.5, True),
    ("Where is Rome? In", "Italy"): likely(0.2),
    ("Rome lies in", "Spain"): likely(0.1),
    ("Rome lies in", "Italy"): likely(0.4, True),
    ("Milan is in", "Spain"): likely(0.3),
    ("Milan is in", "Italy"): likely(0.4, True),
    ("Turin is in", "Spain"): likely(0.05),
    ("Turin is in", "Italy"): likely(0.2),
    ("Ada speaks", "Greek"): likely(0.2),
    ("Ada speaks", "English"): likely(0.5, True),
}


def test_counterfact_by_hand() -> None:
    found = counterfact([ONE], SCORES)
    assert (found.efficacy.n, found.efficacy.success, found.efficacy.accuracy) == (1, 1.0, 1.0)
    assert found.efficacy.difference == pytest.approx(0.5)
    assert (found.paraphrase.n, found.paraphrase.success, found.paraphrase.accuracy) == (2, 0.5, 0.5)
    assert found.paraphrase.difference == pytest.approx((0.3 - 0.3) / 2)
    assert (found.neighborhood.n, found.neighborhood.success, found.neighborhood.accuracy) == (2, 1.0, 0.5)
    assert found.neighborhood.difference == pytest.approx((0.1 + 0.15) / 2)
    assert found.score == pytest.approx(3 / (1 / 1 + 1 / 0.5 + 1 / 1))


def test_means_are_over_facts_and_what_is_not_asked_is_left_out() -> None:
    found = counterfact([ONE, TWO], SCORES)
    assert found.efficacy.success == 0.5
    assert found.efficacy.difference == pytest.approx((0.5 - 0.3) / 2)
    assert found.paraphrase == counterfact([ONE], SCORES).paraphrase
    alone = counterfact([TWO], SCORES)
    assert (alone.paraphrase, alone.neighborhood, alone.score) == (None, None, None)


def test_without_a_true_object_only_the_argmax_is_told() -> None:
    fact = Fact("{} is in", "Rome", "Spain", None, ONE.paraphrase_prompts, ONE.neighborhood_prompts)
    found = counterfact([fact], SCORES)
    assert (found.efficacy.success, found.efficacy.difference, found.efficacy.accuracy) == (None, None, 1.0)
    assert found.paraphrase.accuracy == 0.5
    assert found.neighborhood is None
    assert found.score is None


def test_a_success_of_nothing_makes_the_score_nothing() -> None:
    assert counterfact([ONE], SCORES | {("Rome is in", "Spain"): likely(0.01)}).score == 0.0


def test_retention_by_hand() -> None:
    edited = [EditedFact(ONE, "a", 0, True, False), EditedFact(TWO, "b", 0, True, True)]
    found = retention(edited, SCORES)
    assert [recall.says_new for recall in found.recalls] == [True, False]
    assert (found.succeeded, found.kept, found.prefers_new, found.preferred_new) == (2, 0.5, 0.5, 0.5)
    found = retention([edited[0], EditedFact(TWO, "b", 0, False, True)], SCORES)
    assert (found.succeeded, found.kept) == (1, 1.0)
    assert retention([EditedFact(TWO, "b", 0, False, None)], SCORES).kept is None


def test_a_sample_is_fixed_and_hardly_changes_as_facts_come() -> None:
    names = [f"fact {number}" for number in range(60)]
    few, more = fixed_sample(names[:50], 20, str), fixed_sample(names, 20, str)
    assert len(few) == len(more) == 20
    assert len(set(few) & set(more)) >= 13
    assert list(more) == sorted(more, key=names.index)
    assert fixed_sample(names, 60, str) == tuple(names)


def subject_of(editor: Editor, edited: list[EditedFact]) -> MeasureInput:
    state = State(editor.model, (), StateCache())
    return MeasureInput(state, state, (), tuple(edited))


def test_retention_leaves_out_what_was_edited_anew_and_says_that_it_sampled(gpt2_editor: Editor) -> None:
    again = EditedFact(Fact("{} is in", "Rome", "Peru", "Italy"), "c", 0, True, False)
    edited = [EditedFact(ONE, "a", 0, True, False), EditedFact(TWO, "b", 0, True, True), again]
    found = RetentionOfEdits()(subject_of(gpt2_editor, edited), quiet)
    assert [recall.edit for recall in found.recalls] == ["b", "c"]
    assert found.of == 2
    found = RetentionOfEdits(limit=1)(subject_of(gpt2_editor, edited), quiet)
    assert (len(found.recalls), found.of) == (1, 2)
    found = OfAll(limit=1)(subject_of(gpt2_editor, edited), quiet)
    assert (found.n_facts, found.of, found.base.n_facts) == (1, 3, 1)


def test_objects_in_batches_are_those_one_by_one(editor: Editor) -> None:
    """Sorted, padded and bounded batches against token by token from the whole model's logits."""
    model = editor.model
    asked = [(text, target) for text in ("Rome is in", "I", "Once upon a time there") for target in ("Italy", "Peru x")]
    with torch.no_grad():
        ids = torch.tensor([model.tokens("I").ids])
        asked.append(("I", model.tokenizer.decode([int(model.hf(ids).logits[0, -1].argmax())]).strip() or "Italy"))
    batches = list(object_scores(model, [*asked, asked[0]], tokens_at_once=20))
    assert len(batches) > 2
    found = {question: score for batch in batches for question, score in batch.items()}
    assert set(found) == set(asked)
    for (prompt, target), score in found.items():
        ids, nll, said = list(model.tokens(prompt).ids), 0.0, True
        for token in model.target_ids(target):
            with torch.no_grad():
                logits = model.hf(torch.tensor([ids])).logits[0, -1]
            nll -= float(torch.log_softmax(logits, -1)[token])
            said = said and int(logits.argmax()) == token
            ids.append(token)
        assert score.nll == pytest.approx(nll / len(model.target_ids(target)), rel=1e-4)
        assert score.said == said


def test_no_batch_is_larger_than_allowed(gpt2_editor: Editor, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    real = reading._hidden
    monkeypatch.setattr(
        reading, "_hidden", lambda model, rows: (sizes.append(len(rows) * max(map(len, rows))), real(model, rows))[1]
    )
    list(object_scores(gpt2_editor.model, [("word " * n, "Rome") for n in range(1, 30)], tokens_at_once=64))
    assert max(sizes) <= 64
    assert len(sizes) < 29


def test_entropies_by_hand() -> None:
    assert words("It's 5 km, no?") == ["It", "'", "s", "5", "km", ",", "no", "?"]
    h2 = -(2 / 3) * math.log2(2 / 3) - (1 / 3) * math.log2(1 / 3)  # ab, ba, ab
    assert ngram_entropy(["a", "b", "a", "b"], 2) == pytest.approx(h2)
    assert ngram_entropy(["a", "b", "a", "b"], 3) == pytest.approx(1.0)  # aba, bab
    assert generation_entropy("a b a b") == pytest.approx((2 / 3 * h2 + 4 / 3 * 1.0) / 2)
    assert generation_entropy("a a a a a") == 0.0
    assert generation_entropy("a") == 0.0
    assert generation_entropy(" ".join(map(str, range(18)))) == pytest.approx(
        (2 / 3 * math.log2(17) + 4 / 3 * math.log2(16)) / 2
    )


def test_texts_in_a_batch_are_those_one_by_one(editor: Editor) -> None:
    prompts = ["Rome is", "Once upon a time there was a", "I"]
    together = sampled_texts(editor.model, prompts, 24, seed=1)
    assert together == [sampled_texts(editor.model, [prompt], 24, seed=1)[0] for prompt in prompts]
    assert together != sampled_texts(editor.model, prompts, 24, seed=2)
    for prompt, text in zip(prompts, together, strict=True):
        assert text.startswith(prompt)


def test_every_token_is_one_of_the_likeliest(editor: Editor, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the whole model's logits have it, without a cache; and n_tokens are there, prompt included."""
    model = editor.model
    kept: list[tuple[int, ...]] = []
    monkeypatch.setattr(model, "continuation", lambda before, ids: kept.append((*before, *ids)) or "")
    sampled_texts(model, ["Rome is", "Once upon a time"], 20, top_k=3)
    for prompt, ids in zip(["Rome is", "Once upon a time"], kept, strict=True):
        begin = len(model.tokens(prompt).ids)
        assert len(ids) == 20
        with torch.no_grad():
            logits = model.hf(torch.tensor([ids])).logits[0]
        for position in range(begin, 20):
            assert ids[position] in logits[position - 1].topk(4).indices  # one more: equal ones may change places


def test_a_prompt_that_is_too_long_is_left_as_it_is(gpt2_editor: Editor) -> None:
    text = "Once upon a time there was a king"
    assert sampled_texts(gpt2_editor.model, [text], 3) == [text]


def test_perplexity_by_hand() -> None:
    assert perplexity([(2 * math.log(4.0), 2), (math.log(2.0), 1)]) == pytest.approx((4 * 4 * 2) ** (1 / 3))
    assert perplexity([(1e6, 1)]) == math.inf


def test_a_window_scores_all_but_its_first_token(editor: Editor) -> None:
    model = editor.model
    ids = model.tokens("Bread is among the oldest foods that people make.").ids
    total = 0.0
    for t in range(1, len(ids)):
        with torch.no_grad():
            total -= float(torch.log_softmax(model.hf(torch.tensor([ids[:t]])).logits[0, -1], -1)[ids[t]])
    nll, n = window_nll(model, ids)
    assert n == len(ids) - 1
    assert nll == pytest.approx(total, rel=1e-4)


def test_the_text_is_read_in_windows_that_do_not_overlap(gpt2_editor: Editor, tmp_path: Path) -> None:
    model = gpt2_editor.model
    measure = PerplexityOfText()
    windows = measure.windows(model)
    size = model.max_tokens  # 256: smaller than 512
    text = measure._text[0]
    assert [i for window in windows for i in window] == model.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert {len(window) for window in windows[:-1]} == {size}
    found = measure(subject_of(gpt2_editor, []), quiet)
    assert found.n == sum(map(len, windows)) - len(windows)
    assert (found.window, found.text) == (size, "editlab’s own text")
    (tmp_path / "one.txt").write_text("")
    for wrong, sentence in ((tmp_path / "none.txt", "and there"), (tmp_path / "one.txt", "two tokens")):
        with pytest.raises(ValueError, match=sentence):
            PerplexityOfText(str(wrong)).windows(model)


def test_bleeding_by_hand() -> None:
    panel = [
        Fact("{} is in", "Rome", "Spain", "Italy", case_id=1),
        Fact("{} speaks", "Ada", "Greek", "English", case_id=2),
    ]
    found = bleeding(panel, SCORES)
    assert (found.n, found.share) == (2, 0.5)
    assert [(broken.prompt, broken.target, broken.case_id) for broken in found.broken] == [("Rome is in", "Italy", 1)]
    assert bleeding([], {}) is None


def test_the_panel_is_what_the_unedited_model_knows_without_edited_subjects(gpt2_editor: Editor) -> None:
    measure = BleedingOfPanel()
    base, now = State(gpt2_editor.model, (), StateCache()), State(gpt2_editor.model, (), StateCache())
    known, edited = measure._facts[3], measure._facts[5]
    for state in (base, now):
        for fact in measure._facts:
            said = fact in (known, edited) or fact.subject in (known.subject, edited.subject)
            state.cache.objects[fact.text, fact.target_true] = ObjectScore(1.0, said)
    now.cache.objects[known.text, known.target_true] = ObjectScore(9.0, False)
    found = measure(MeasureInput(now, base, (), (EditedFact(edited, "a", 0, True, False),)), quiet)
    assert found.n == sum(fact.subject == known.subject for fact in measure._facts)
    assert [broken.prompt for broken in found.broken] == [known.text]


@pytest.fixture(scope="module")
def edited_session() -> Session:
    from tests.conftest import tiny_editor

    session = Session(tiny_editor("gpt2"))
    for number, target in enumerate(("Manila", "Paris", "Rome", "Oslo")):
        session.edit(Fact("{} originated in", f"Band {number}", target, "Chicago", generation_prompts=("We",)))
        session.measure(["retention", "counterfact", "bleeding", "generation"])
    return session


def test_what_a_session_measures_is_what_plain_asking_finds(edited_session: Session) -> None:
    """The whole way: retention after every edit, one fact at a time from the logits."""
    model = edited_session.model
    for index in range(1, 5):
        edited_session.goto(index)
        edited_session.put_in_force()
        found = edited_session.step(index).measurement.retention
        assert [recall.edit for recall in found.recalls] == [entry.id for entry in edited_session.log[:index]]
        for recall, entry in zip(found.recalls, edited_session.log, strict=False):
            (fact,) = entry.facts
            ids = [*model.tokens(fact.text).ids, *model.target_ids(fact.target_new)]
            with torch.no_grad():
                best = model.hf(torch.tensor([ids])).logits[0].argmax(-1).tolist()
            n = len(model.target_ids(fact.target_new))
            assert recall.says_new == (best[-n - 1 : -1] == ids[-n:])
            assert recall.said_new == entry.made.said_new[0]
    edited_session.goto(4)


def test_before_is_what_the_same_prompts_gave_a_step_earlier(edited_session: Session) -> None:
    found = [step.measurement.counterfact for step in edited_session.steps()[1:]]
    assert found[0].before == found[0].base  # the step before the first edit is the unedited model
    edited_session.goto(2)
    edited_session.put_in_force()
    (fact,) = edited_session.step(3).facts
    asked = [(fact.text, target) for target in (fact.target_new, fact.target_true)]
    scores = {
        question: score for batch in object_scores(edited_session.model, asked) for question, score in batch.items()
    }
    difference = scores[asked[0]].p - scores[asked[1]].p
    assert found[2].before.efficacy.difference == pytest.approx(difference, rel=1e-5)
    assert found[2].before.efficacy != found[2].efficacy
    edited_session.goto(4)


def test_first_forgotten_is_the_first_step_that_lost_it(edited_session: Session) -> None:
    steps = edited_session.steps()
    rows = recall_map(steps)
    assert [len(row) for row in rows.values()] == [4, 3, 2, 1]
    forgotten = first_forgotten(steps)
    for fact, row in rows.items():
        said = edited_session.log[next(i for i, e in enumerate(edited_session.log) if e.id == fact[0])].made.said_new[0]
        lost = [index for index, recalled in row.items() if said and not recalled]
        assert forgotten.get(fact) == (lost[0] if lost else None)
    broken = first_broken(steps)
    assert set(broken) == {fact for step in steps[1:] for fact in step.measurement.bleeding.broken}


def test_the_table_has_a_row_for_every_number(edited_session: Session, tmp_path: Path) -> None:
    import pandas

    from editlab.analysis.table import write_table

    table = edited_session.table()
    step = edited_session.step(3)
    row = table[(table.step == 3) & (table.measure == "drift.relative")].iloc[0]
    assert row.value == step.measurement.drift[2].relative
    assert (row.layer, row.method, row.subject, row.unit) == (2, "rome", "Band 2", "of ‖W₀‖")
    row = table[(table.step == 3) & (table.measure == "counterfact.efficacy.difference")].iloc[0]
    assert (row.value, row.base) == (
        step.measurement.counterfact.efficacy.difference,
        step.measurement.counterfact.base.efficacy.difference,
    )
    said, base = step.measurement.completions[0], step.measurement.base[0]
    for name in ("p_new", "p_true", "p_new_joint", "p_true_joint"):
        row = table[(table.step == 3) & (table.measure == name)].iloc[0]
        assert (row.value, row.base) == (getattr(said, name), getattr(base, name))
    row = table[(table.step == 3) & (table.measure == "bleeding")].iloc[0]
    assert row.base == 1.0
    row = table[table.measure == "health"].iloc[0]
    assert (row.step, row.value) == (
        4,
        ("healthy", "degrading", "collapsed").index(edited_session.state().health.status),
    )
    size = table[(table.step == 2) & (table.measure == "size.norm")].value.iloc[0]
    assert size == pytest.approx(edited_session.log[1].edit[2].norm())
    assert not table.duplicated(["step", "measure", "layer"]).any()
    assert len(rows_of(edited_session.steps())) == len(table)
    for name in ("table.csv", "table.parquet"):
        write_table(table, tmp_path / name)
    assert len(pandas.read_csv(tmp_path / "table.csv")) == len(table)
    pandas.testing.assert_frame_equal(pandas.read_parquet(tmp_path / "table.parquet"), table)
    with pytest.raises(ValueError, match=r"\.csv or \.parquet"):
        write_table(table, tmp_path / "table.xls")


def test_every_measure_has_a_field_or_is_a_task() -> None:
    from editlab.core.records import Measurement

    assert set(standard().by_name) <= set(Measurement.__dataclass_fields__)
    assert isinstance(standard(), Measures)


def test_a_setting_is_of_content_not_of_names_and_words(tmp_path: Path) -> None:
    one = tmp_path / "one.txt"
    one.write_text("The same words.")

    def setting(**changes: object) -> str:
        return Measures({"perplexity": PerplexityOfText(**changes)}).setting("perplexity")

    first = setting(source=str(one))
    assert setting(source=str(one), help="Other words.", every=7) == first
    one.write_text("Other words.")
    assert setting(source=str(one)) != first
    assert setting() != setting(source="wikitext") != first
    entropies = [GenerationEntropy(), GenerationEntropy(limit=2), GenerationEntropy(seed=1), GenerationEntropy(help="")]
    found = [Measures({"generation": measure}).setting("generation") for measure in entropies]
    assert (len(set(found)), found[0]) == (3, found[3])


def test_what_an_earlier_version_measured_is_known_but_for_files(tmp_path: Path) -> None:
    """It named a setting by the measure's repr, and so did not see what was in a file."""
    file = tmp_path / "text.txt"
    file.write_text("Some words.")

    def known(measure: object) -> bool:
        measures = Measures({measure.name: measure})
        return measures.is_setting_of(hashlib.sha256(repr(measure).encode()).hexdigest()[:16], measure.name)

    assert known(PerplexityOfText())
    assert known(OfAll())
    assert not known(PerplexityOfText(str(file)))


def test_what_was_lost_between_two_measurements_is_told_as_between(edited_session: Session) -> None:
    """Measured at steps 0 and 4 only, a loss is of one of the edits 1 to 4; of a fact, of one after its own."""

    def without(step: Step) -> Step:
        return replace(step, measurement=replace(step.measurement, bleeding=None, unrelated=None, retention=None))

    steps = edited_session.steps()
    ends = [steps[0], *(without(step) for step in steps[1:4]), steps[4]]
    assert {str(when) for when in broken_between(ends).values()} <= {"some time in edits 1 to 4"}
    made = {step.id: step.index for step in steps}
    for (edit, _), when in forgotten_between(ends).items():
        assert (when.first, when.last) == (made[edit] + 1, 4)
    for fact, when in broken_between(steps).items():
        assert when.first == when.last == first_broken(steps)[fact]
        assert str(when) == f"edit {when.last}"


def test_an_object_of_several_tokens_has_a_mean_and_a_joint_probability() -> None:
    """From the logits, token by token."""
    model = tiny_editor("gpt2").model
    fact = Fact("{} originated in", "OK Go", "J.R.R. Tolkien", "a")
    (said,) = complete(model, watched_of(fact)[:1])
    ids, target = model.tokens(fact.text).ids, model.target_ids("J.R.R. Tolkien")
    with torch.no_grad():
        log_probs = model.hf(torch.tensor([[*ids, *target]])).logits[0].double().log_softmax(-1)
    joint = math.exp(sum(float(log_probs[len(ids) - 1 + i, token]) for i, token in enumerate(target)))
    assert len(target) > 1
    assert said.p_new_joint == pytest.approx(joint, rel=1e-4)
    assert said.p_new == pytest.approx(joint ** (1 / len(target)), rel=1e-4)
    assert chance(said.p_new, said.p_new_joint, "{:.3g}".format) == f"{joint:.3g} ({said.p_new:.3g} per token)"
    assert chance(0.5, 0.5, percent) == "50 %"
    assert chance(0.5, None, percent) == "50 % per token"
    assert chance(None, None, percent) == NOTHING


def test_drift_and_size_of_one_edit_are_one_number() -> None:
    session = Session(tiny_editor("gpt2"))
    step = session.edit(Fact("{} originated in", "OK Go", "Manila", "Chicago"))
    drift, size = step.measurement.drift[2], step.size[2]
    assert drift.norm == pytest.approx(size.norm, rel=1e-6)
    assert step.trace.layers[2].weight_norm == session.model.base_norm(2)


def test_the_sample_of_unrelated_facts_is_the_same_in_every_state_and_a_part_of_all(gpt2_editor: Editor) -> None:
    whole, sample = BleedingOfPanel(), BleedingOfSample()
    base, now, later = (State(gpt2_editor.model, (), StateCache()) for _ in range(3))
    for state in (base, now, later):
        for fact in whole._facts:
            state.cache.objects[fact.text, fact.target_true] = ObjectScore(
                1.0, state is base or len(fact.text) % 2 == 0
            )
    every = whole(MeasureInput(now, base, (), ()), quiet)
    one, two = (sample(MeasureInput(state, base, (), ()), quiet) for state in (now, later))
    assert one == two
    assert one.n == sample.limit
    assert 0 < len(one.broken) < one.n
    assert set(one.broken) < set(every.broken)
    edited = next(fact for fact in whole._facts if fact.text == one.broken[0].prompt)
    without = sample(MeasureInput(now, base, (), (EditedFact(edited, "a", 0, True, False),)), quiet)
    assert edited.text not in {each.prompt for each in without.broken}
    assert without.n < one.n
