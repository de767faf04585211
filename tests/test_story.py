"""The story of a session: everything is in it, whatever was typed is text, and it needs nothing else to be seen."""

from __future__ import annotations

import io
import math
import re
import xml.etree.ElementTree as ElementTree
import zipfile
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from editlab.core.facts import Fact
from editlab.core.records import SessionState
from editlab.methods import about, methods
from editlab.report.story import story
from editlab.report.story.axis import Axis
from editlab.report.story.figures import figures_archive, figures_of, recall_rows
from editlab.report.story.svg import Line, Point, cell_map, line_chart
from tests.page.fake_lab import FakeLab

ON_DEMAND = (
    "sentiment",
    "sentiment:generation",
    "bleeding",
    "says_it",
    "says_it_all",
    "counterfact_plus",
    "preservation",
)
EVIL = "<script>alert(1)</script>\"' onload=x"


def told(edits: int = 6, fact: Fact | None = None) -> SessionState:
    """A session of the fake lab with everything measured, one edit switched off and the last undone."""
    lab = FakeLab()
    session = lab.create()
    facts = [fact] if fact else lab.facts[:edits]
    for number, each in enumerate(facts):
        lab.edit(session, [each], ("rome", "memit")[number % 2]).result()
    lab.watch(session, [EVIL])
    if edits > 2:
        lab.toggle(session, 2)
        lab.goto(session, len(facts) - 1)
    lab.measure_due(session).result()
    for index in range(len(facts) + 1):
        lab.measure(session, [*ON_DEMAND[: 3 if index == 0 else None]], index).result()
    return lab.state(session)


@pytest.fixture(scope="module")
def state() -> SessionState:
    return told()


class Tags(HTMLParser):
    """All tags with their attributes, and the text between them."""

    VOID = ("meta", "br", "line", "link")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_every_edit_is_told_with_its_fact_size_risk_and_words(state: SessionState) -> None:
    page = Tags(story(state, methods=FakeLab().info().methods))
    assert not page.open  # every tag is closed, in order
    cards = [attributes for name, attributes in page.tags if name == "article"]
    assert [card["id"] for card in cards] == [f"edit-{n}" for n in range(1, 7)]
    assert [card["class"] for card in cards] == ["edit", "edit idle", "edit", "edit", "edit", "edit idle"]
    for step in state.steps[1:]:
        assert step.facts[0].text in page.text
        assert f"‖ΔW‖ {math.hypot(*(size.norm for size in step.size.values())):.3g}" in page.text
        assert step.measurement.completions[0].completion in page.text
    assert page.text.count("low risk") == 6
    assert page.text.count("switched off") == 2  # in short, and at the edit
    assert state.health.reason in page.text
    assert "6 edits by ROME and MEMIT, 1 switched off and 1 undone." in page.text


def test_every_measure_is_told_with_the_unedited_level_n_and_its_rule(state: SessionState) -> None:
    page = Tags(story(state)).text
    assert "Says it: asked freely, “Rome <b>now</b>”; says it elsewhere 0 of 2" in page
    end = page[page.index("Measured at the end") :]
    for words in ("Free answers, last edit", "CounterFact+, all edits so far", "Preservation error D, layer 6"):
        assert words in end
    assert "0 %100 %1free greedy answer of one sentence" in end
    assert "NS+ teacher-forced50 %50 %6teacher-forced: share of prefixed neighborhood prompts" in end


def test_what_was_forgotten_is_told_at_both_edits_and_in_the_table() -> None:
    """In the fake lab an edit is forgotten once three others have followed."""
    lab = FakeLab()
    session = lab.create()
    for fact in lab.facts[:4]:
        lab.edit(session, [fact]).result()
    lab.measure_due(session).result()
    page = story(lab.state(session))
    cards = re.findall(r"<article.*?</article>", page, re.DOTALL)
    assert 'forgotten</span> with <a href="#edit-4">' in cards[0]
    assert 'With this edit <a href="#edit-1">edit 1</a> (Eiffel Tower) was forgotten.' in cards[3]
    assert all("forgotten" not in card for card in cards[1:3])
    assert "1 fact that had succeeded was forgotten later." in page
    assert "Edited facts, by when they were first forgotten" in page


def test_what_people_typed_and_models_wrote_is_text() -> None:
    fact = Fact(f"{{}} is {EVIL}", EVIL, EVIL.upper(), "x<b>y", (f"{EVIL} a",), (f"{EVIL} b",))
    hurt = told(1, fact)
    hurt = replace(hurt, id=EVIL, model={"name": EVIL, "device": EVIL, "reason": EVIL})
    steps = [replace(s, provenance={"versions": {EVIL: EVIL}, "contexts": [EVIL]}, method=EVIL) for s in hurt.steps]
    page = story(replace(hurt, steps=tuple(steps)), EVIL)
    assert "<script" not in page.lower()
    found = Tags(page)
    assert not found.open
    assert not [key for _, attributes in found.tags for key in attributes if key.startswith("on")]
    assert found.text.count("alert(1)") > 5  # it is there, as text


def test_it_needs_no_network_and_runs_nothing(state: SessionState) -> None:
    found = Tags(story(state, methods=[about(kind) for kind in methods().values()]))
    used = {name for name, _ in found.tags}
    assert not used & {"script", "link", "img", "iframe", "object", "embed", "base", "form", "image", "use"}
    addresses = [v for _, attributes in found.tags for key, v in attributes.items() if key in ("href", "src")]
    assert all(v.startswith(("#", "https://arxiv.org/abs/")) for v in addresses)
    assert {methods()[name].paper.link for name in ("rome", "memit")} <= set(addresses)
    assert not re.search(r"url\(|@import", story(state))


def test_a_session_without_edits_and_one_without_measurements_have_a_story() -> None:
    lab = FakeLab()
    session = lab.create()
    page = story(lab.state(session))
    assert "No edit was made" in page
    lab.edit(session, [lab.facts[0]]).result()
    state = lab.state(session)
    bare = replace(state, steps=tuple(replace(step, measurement=None) for step in state.steps), health=None)
    page = Tags(story(bare))
    assert not page.open
    assert "was not measured" in page.text


def test_every_figure_has_its_numbers_in_a_table_and_is_whole_as_a_file(state: SessionState) -> None:
    figures = {figure.name: figure for figure in figures_of(state)}
    names = ["drift", "size", "recalled", "perplexity", "sentiment", "sentiment-generation", "unrelated", "forgetting"]
    names += ["says-it", "counterfact-plus", "preservation"]
    assert sorted(figures) == sorted(names)
    perplexity = [(step.index, step.measurement.perplexity) for step in state.steps if step.measurement]
    shown = {int(step): float(value) for step, value in figures["perplexity"].rows}
    assert shown == {index: pytest.approx(found.value, rel=5e-3) for index, found in perplexity if found}
    assert figures["size"].header == ("step", "layer 4", "layer 5", "layer 6")
    with zipfile.ZipFile(io.BytesIO(figures_archive(state))) as archive:
        assert archive.namelist() == [f"{name}.svg" for name in figures]
        for name in archive.namelist():
            drawing = archive.read(name).decode()
            assert ElementTree.fromstring(drawing).tag == "{http://www.w3.org/2000/svg}svg"
            assert "var(" not in drawing
            assert ".c0 { color: #2452c7" in drawing


def test_a_line_goes_through_its_points_on_either_axis() -> None:
    """Equal steps are equally far apart on a linear axis, equal factors on a log axis; infinity is left out."""
    for scale, ys in (("linear", (1.0, 2.0, 3.0)), ("log", (1.0, 10.0, 100.0))):
        points = [Point(i, y) for i, y in enumerate((*ys, math.inf))]
        drawing = line_chart("a title", [Line("", points)], 3, Axis(scale))
        path = re.search(r'<polyline[^>]* points="([^"]*)"', drawing)
        places = [tuple(map(float, pair.split(","))) for pair in path[1].split()]
        assert len(places) == 3
        for axis in (0, 1):
            steps = [b[axis] - a[axis] for a, b in pairwise(places)]
            assert steps[0] == pytest.approx(steps[1], abs=0.21)
        assert places[2][1] < places[0][1]  # up is less in SVG


@pytest.mark.parametrize(
    ("axis", "values", "ticks"),
    [
        (Axis("share"), [0.2], [0, 0.25, 0.5, 0.75, 1]),
        (Axis(zero=True), [0.03, 0.07], [0, 0.02, 0.04, 0.06, 0.08]),
        (Axis(), [20, 23.2], [20, 21, 22, 23, 24]),
        (Axis("log"), [0.0, 8, 30, math.inf], [5, 10, 20, 50]),
        (Axis(), [math.nan], [0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6]),
    ],
)
def test_ticks_are_round_and_enclose_what_can_be_drawn(axis: Axis, values: list[float], ticks: list[float]) -> None:
    found = axis.ticks(values)
    drawn = [value for value in values if axis.draws(value)]
    assert found[0] <= min(drawn, default=found[0])
    assert found[-1] >= max(drawn, default=found[-1])
    if drawn:
        assert found == ticks


def test_the_map_says_the_word_of_every_stretch(state: SessionState) -> None:
    drawing = cell_map("t", [("a<b", {1: "recalled", 2: "recalled", 3: "forgotten"})], 3, ("recalled", "forgotten"))
    assert "a&lt;b: recalled, steps 1 to 2" in drawing
    assert "a&lt;b: forgotten, step 3" in drawing
    rows = recall_rows(state.steps)
    assert [list(cells) for cells in rows.values()] == [list(range(step, 7)) for step in (1, 3, 4, 5, 6)]
    assert unescape(drawing).count("a<b") == 4  # the row's name with its own words on top, and two cells
