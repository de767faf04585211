"""The form of a fact: prompts to the last character, subjects marked where they are meant, messages of a chat."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

import ipywidgets as widgets
import pytest

from editlab.core.chat import ChatFrame
from editlab.core.fact_files import SkippedRow
from editlab.core.facts import Fact
from editlab.core.follow_ups import FollowUp
from editlab.core.records import Completion
from editlab.page.app import App
from editlab.page.known import Preview
from editlab.page.panels.fact_finder import FactFinder
from editlab.page.panels.fact_form import FactForm
from editlab.page.panels.make_edit import MakeEdit
from tests.page.fake_lab import FakeLab
from tests.page.knowing import knowledge_of, nothing
from tests.page.seen import buttons, field, seen
from tests.page.test_app import apply, run
from tests.page.test_app import fill as fill_page

CHAT = ChatFrame("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n")
FACT = Fact("Where is the {}?", "Prado", "Rome", "Madrid", ("The Prado is in",), ("The Louvre is in",), case_id=3)


def form_of(chat: ChatFrame | None = CHAT) -> tuple[FactForm, list[Fact | None]]:
    told: list[Fact | None] = []
    return FactForm(told.append, lambda: None, chat), told


def fill(form: FactForm, prompt: str, subject: str = "Prado", new: str = "Rome") -> None:
    form.prompt.value, form.subject.value, form.new.value = prompt, subject, new


@pytest.mark.parametrize("prompt", ["user\nThe Prado is in ", "  The Prado\tis in\n", "<|im_start|>\r\nPrado\r\n"])
def test_a_prompt_is_read_to_the_last_character(prompt: str) -> None:
    form, told = form_of()
    fill(form, prompt)
    assert form.read().text == prompt
    assert told[-1] == form.read()
    assert "\n" not in form._shown.value
    assert ("⏎" in form._shown.value) == ("\n" in prompt)
    again, _ = form_of()
    again.fill(form.read())
    assert again.prompt.value == prompt
    assert again.read() == form.read()


def test_the_prompt_may_have_line_breaks_and_the_rest_is_one_line() -> None:
    form, _ = form_of()
    assert isinstance(form.prompt, widgets.Textarea)
    assert all(isinstance(control, widgets.Text) for control in (form.subject, form.new, form.true))


def test_the_subject_is_marked_where_it_is_meant() -> None:
    form, _ = form_of()
    fill(form, "Annual reports of Ann are read by", "Ann")
    assert 'Annual reports of <mark class="el-subject">Ann</mark> are' in form._shown.value
    assert form.read().prompt == "Annual reports of {} are read by"
    fill(form, "Annual {} reports of Ann", "Ann")
    assert 'Annual <mark class="el-subject">Ann</mark> reports of Ann' in form._shown.value


@pytest.mark.parametrize(
    ("prompt", "new", "direct"),
    [
        ("法国的首都是", "罗马", True),
        ("Paris (", "Italy", True),
        ("法国的首都是 ", "罗马", False),
        ("The Prado is in", "Rome", False),
        ("The Prado is in", "", False),
    ],
)
def test_an_object_that_follows_without_a_blank_is_told_of(prompt: str, new: str, direct: bool) -> None:
    form, _ = form_of()
    fill(form, prompt, "Prado", new)
    assert ("joined without a blank" in form._shown.value) == direct
    form.as_chat.value = True
    assert "joined without a blank" not in form._shown.value  # it follows the template's own text


def test_what_joins_the_object_is_chosen_in_the_form() -> None:
    form, told = form_of(None)
    fill(form, "The Prado is in")
    for chosen, direct in (("nothing", True), ("blank", False), ("auto", False)):
        form.joined.value = chosen
        assert told[-1] == form.read() == Fact("The {} is in", "Prado", "Rome", joined_by=chosen)
        assert ("joined without a blank" in form._shown.value) == direct
    form.fill(replace(FACT, joined_by="nothing"))
    assert form.joined.value == "nothing"
    assert form.read() == replace(FACT, joined_by="nothing")
    form.joined.value = "blank"
    assert form.read() == replace(FACT, joined_by="blank")
    form.fill(FACT)
    assert form.read() == FACT


def test_the_form_tells_of_a_blank_that_changes_the_objects_tokens() -> None:
    knowledge = knowledge_of()
    make = MakeEdit(knowledge, nothing)
    plain = Completion("The Prado is in", "rewrite", " Rome", (), 0.1, 0.1)
    knowledge.change(preview=Preview(FACT, (plain,)))
    assert "ends in" not in make._says.value
    knowledge.change(preview=Preview(FACT, (replace(plain, notice="The prompt ends in a blank: <b>"),)))
    assert "The prompt ends in a blank: &lt;b&gt;" in make._says.value


def test_a_fact_is_a_message_while_the_switch_is_on() -> None:
    form, told = form_of()
    form.fill(FACT)
    assert told[-1] == FACT
    form.as_chat.value = True
    assert told[-1] == form.read() == CHAT.around(FACT)
    assert form.prompt.value == FACT.text
    assert "&lt;|im_start|&gt;user⏎" in form._shown.value
    form.as_chat.value = False
    assert told[-1] == FACT
    form.fill(CHAT.around(FACT))  # as a step of the log has it
    assert (form.as_chat.value, form.prompt.value) == (True, FACT.text)
    assert form.read() == CHAT.around(FACT)


def test_a_model_without_a_template_says_so() -> None:
    form, _ = form_of(None)
    assert form.as_chat.disabled
    assert form.as_chat.tooltip == "This model has no chat template."
    form.fill(CHAT.around(FACT))
    assert form.read() == CHAT.around(FACT)


def finder_of(count: int, *skipped: SkippedRow) -> str:
    info = replace(FakeLab().info(), facts_source="<b>zsre.json", n_skipped=count, skipped=skipped)
    finder = FactFinder(knowledge_of(info=info), nothing)
    return " ".join(part.value for part in finder.search._child.children if isinstance(part, widgets.HTML))


def test_rows_that_were_left_out_are_listed_with_the_reason() -> None:
    shown = finder_of(3, SkippedRow(2, "the subject '<i>' must occur"), SkippedRow(9, "not JSON"))
    assert "3 rows of &lt;b&gt;zsre.json were left out" in shown
    assert "row 2: the subject &#39;&lt;i&gt;&#39; must occur" in shown
    assert "row 9: not JSON" in shown
    assert "and 1 more" in shown
    assert "left out" not in finder_of(0)


def test_follow_ups_are_typed_one_a_line_and_kept() -> None:
    form, told = form_of()
    fill(form, "The Prado is in")
    assert form.read().follow_ups == ()
    form.follow_ups.value = "alias: The museum is in -> Rome\n\ntwo hops: It lies in the land of -> Italy (was: Spain)"
    assert form.read().follow_ups == (
        FollowUp("alias", "The museum is in", "Rome"),
        FollowUp("two_hops", "It lies in the land of", "Italy", "Spain"),
    )
    again, _ = form_of()
    again.fill(form.read())
    assert again.read() == form.read()
    form.follow_ups.value = "cousin: It is -> Rome"
    assert told[-1] is None
    with pytest.raises(ValueError, match="kind must be one of relation, alias, reverse, two_hops"):
        form.read()
    again.fill(FACT)
    assert again.read() == FACT


def own_fact(scenario: Callable[[App, FakeLab], Awaitable[None]]) -> None:
    """With a fact of a visitor's own in the form, of which the lab's facts know the relation."""

    async def begin(app: App, lab: FakeLab) -> None:
        fill_page(app, "The Giralda is located in the city of", "Giralda", "Rome", lab.facts[0].target_true or "")
        await app.runner.idle()
        await scenario(app, lab)

    run(begin)


def test_what_else_to_ask_of_an_own_fact_is_offered_and_asked_only_after_a_click() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        assert "See what else changes. Suggested" in seen(app.make)
        assert f"The {lab.facts[0].subject} is located in the city of" in seen(app.make)
        asked = app.make.draft
        assert asked is not None
        assert (asked.fact.paraphrase_prompts, asked.fact.neighborhood_prompts) == ((), ())
        risks = [call for call in lab.calls if call[0] == "risk"]
        buttons(app.make)["Ask these too"].click()
        assert "About the usual size" in seen(app.make.risk)  # of the same edit: it stays
        await app.runner.idle()
        assert [call for call in lab.calls if call[0] == "risk"] == risks
        await apply(app)
        assert "See what else changes" not in seen(app.make)
        (fact,) = [call for call in lab.calls if call[0] == "edit"][-1][2]
        assert fact.neighborhood_prompts[0] == f"The {lab.facts[0].subject} is located in the city of"
        assert field(app.make, "Neighbours").value.splitlines() == list(fact.neighborhood_prompts)
        assert "Giralda" in fact.paraphrase_prompts[0]

    own_fact(scenario)


def test_prompts_that_were_taken_can_be_changed_and_go_with_their_sentence() -> None:
    async def scenario(app: App, lab: FakeLab) -> None:
        buttons(app.make)["Ask these too"].click()
        lines = field(app.make, "Rewordings")
        lines.value = "Whoever sees the Giralda is in\n\n"
        assert app.make.form.read().paraphrase_prompts == ("Whoever sees the Giralda is in",)
        field(app.make, "Correct answer").value = "Lisbon"
        assert app.make.form.read().neighborhood_prompts == ()
        field(app.make, "Sentence to complete").value = "The Belem tower is located in the city of"
        field(app.make, "About").value = "Belem tower"
        assert field(app.make, "Neighbours").value == ""
        assert "lacks “Belem tower”" in seen(app.make)  # what was typed is kept, and doubted
        app.make.form.fill(lab.facts[1])
        assert app.make.form.read() == lab.facts[1]

    own_fact(scenario)


def test_an_offer_never_stands_beside_another_sentence() -> None:
    async def scenario(app: App, _lab: FakeLab) -> None:
        field(app.make, "About").value = "Giral"
        assert "See what else changes" not in seen(app.make)
        app.make.form.take.click()  # as in a browser that is a moment behind
        assert app.make.form.read().paraphrase_prompts == ()

    own_fact(scenario)


def test_texts_of_a_browser_that_is_behind_bring_no_prompts_of_another_sentence_back() -> None:
    form, _ = form_of(None)
    form.fill(FACT)
    behind = {control.description: control.value for control in form.texts}
    form.take_typed({**behind, "Sentence to complete": "The Louvre is in", "About": "Louvre"})
    assert form.read() == Fact.typed("The Louvre is in", "Louvre", "Rome", "Madrid")
    form.take_typed({**behind, "Sentence to complete": "The Louvre is in", "About": "Louvre", "Rewordings": "a\nb"})
    assert form.read().paraphrase_prompts == ("a", "b")
