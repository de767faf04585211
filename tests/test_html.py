"""The builders of HTML escape whatever is text, so that no typed or generated word becomes an element."""

import inspect
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
from markupsafe import Markup

from editlab.core.facts import Fact
from editlab.core.records import Completion, TokenChance
from editlab.page.controls import html as html_widget
from editlab.report import html

BAD = "<b>&\"'"
FACT = Fact("The {} is in", "Louvre", "Rome", "Paris")
CHANCES = [TokenChance(" Rome", 0.5), TokenChance(" Paris", 0.25)]


def completion(text: str = "so", token: str = " Rome") -> Completion:
    return Completion("Where?", "own", text, (TokenChance(token, 0.5),))


CALLS: dict[str, tuple[Callable[..., Markup], dict[str, Any]]] = {  # a builder, and arguments for it
    "tag": (html.tag, {"content": "word", "css": "kind", "title": "told"}),
    "joined": (html.joined, {"parts": ["one", "two"], "between": ", "}),
    "show_token": (html.show_token, {"token": " Rome"}),
    "marked_prompt": (html.marked_prompt, {"text": "The Louvre is in", "subject": "Louvre", "where": None}),
    "arrow_to": (html.arrow_to, {"target_new": "Rome"}),
    "fact_line": (html.fact_line, {"fact": FACT}),
    "bars": (html.bars, {"top": CHANCES, "before": {" Rome": 0.1}, "new": "Rome", "before_name": "before"}),
    "moved": (html.moved, {"rank": 1, "was": 2, "known": 5}),
    "changed_words": (html.changed_words, {"before": "one two", "now": "one three"}),
    "table": (html.table, {"caption": "All", "header": ["a", "b"], "rows": [["1", "2"]], "groups": "", "css": "c"}),
    "note": (html.note, {"text": "word", "css": "kind"}),
    "empty": (html.empty, {"title": "None", "text": "Not yet"}),
    "sparkline": (html.sparkline, {"values": [0.0, 1.0], "label": "course"}),
    "download_link": (html.download_link, {"name": "a.csv", "kind": "text/csv", "payload": b"1"}),
    "saving_link": (html.saving_link, {"name": "a.csv", "address": "a.csv", "n_bytes": 1}),
}
UNSEEN = {("changed_words", "before"), ("marked_prompt", "subject"), ("bars", "new")}  # only sought in another text


class Read(HTMLParser):
    """The elements of a piece of HTML, and all that it says in its text and its attributes."""

    def __init__(self, piece: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.says: list[str] = []
        self.feed(str(piece))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.says += [value or "" for _, value in attrs]

    def handle_data(self, data: str) -> None:
        self.says.append(data)


def spoiled(value: Any) -> Iterator[Any]:
    """`value` with each of its texts in turn replaced by one that would be an element."""
    match value:
        case str():
            yield BAD
        case list():
            for place, each in enumerate(value):
                yield from ([*value[:place], other, *value[place + 1 :]] for other in spoiled(each))
        case dict():
            yield {BAD: 0.5, **value}
        case TokenChance():
            yield TokenChance(BAD, value.p)
        case Completion():
            yield completion(token=BAD)
        case Fact():
            yield from (
                Fact("The {} " + BAD, "Louvre", "Rome"),
                Fact("The {} is", BAD, "Rome"),
                Fact("The {} is", "Louvre", BAD),
            )


def test_every_builder_is_called_here() -> None:
    functions = inspect.getmembers(html, inspect.isfunction)
    own = {name: of for name, of in functions if of.__module__ == html.__name__ and not name.startswith("_")}
    assert {name for name, of in own.items() if of.__annotations__["return"] == "Markup"} == set(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_text_never_becomes_an_element(name: str) -> None:
    build, arguments = CALLS[name]
    named = {"name": "p"} if name == "tag" else {}
    plain = Read(build(**named, **arguments))
    for key, value in arguments.items():
        for bad in spoiled(value):
            built = build(**named, **{**arguments, key: bad})
            read = Read(built)
            assert isinstance(built, Markup)
            assert read.elements.count("b") == plain.elements.count("b"), f"{key} of {name} was not escaped: {built}"
            if isinstance(bad, str) and (name, key) not in UNSEEN:
                assert any(BAD in says for says in read.says), f"{key} of {name} is not shown as it was given: {built}"


def test_html_goes_through_unchanged_and_text_around_it_is_escaped() -> None:
    inner = html.tag("i", BAD)
    assert inner == "<i>&lt;b&gt;&amp;&#34;&#39;</i>"
    assert html.tag("p", inner) == f"<p>{inner}</p>"
    assert BAD + inner == "&lt;b&gt;&amp;&#34;&#39;" + str(inner)
    assert html.joined([inner, BAD]) == str(inner) + "&lt;b&gt;&amp;&#34;&#39;"
    assert html.tag("p", f"{inner}") == "<p>&lt;i&gt;&amp;lt;b&amp;gt;&amp;amp;&amp;#34;&amp;#39;&lt;/i&gt;</p>"


def test_a_widget_shows_text_as_text() -> None:
    shown = html_widget(BAD)
    assert shown.value == "&lt;b&gt;&amp;&#34;&#39;"
    shown.value = html.tag("i", "word")
    assert shown.value == "<i>word</i>"
    with shown.hold_trait_notifications():
        shown.value = BAD
    assert shown.value == shown.get_state()["value"] == "&lt;b&gt;&amp;&#34;&#39;"
