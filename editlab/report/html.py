"""Small pieces of HTML. They are `Markup`, and whatever is not is text, which each builder here escapes.

So a text that someone forgot about is shown as it was typed, and HTML that lost its type is shown as its source.
"""

from __future__ import annotations

import base64
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from markupsafe import Markup, escape

from editlab.core.facts import Fact, in_one_line, place_of
from editlab.core.joining import is_without_blanks
from editlab.core.numbers import NOTHING as NOTHING
from editlab.core.numbers import number as number
from editlab.core.numbers import percent as percent
from editlab.core.numbers import size as size
from editlab.core.records import TokenChance

SIGNS = {  # a shape beside the colour of each status of health and each level of risk
    **dict.fromkeys(("healthy", "low"), "✓"),
    **dict.fromkeys(("unchecked",), "…"),
    **dict.fromkeys(("degrading", "raised"), "▲"),
    **dict.fromkeys(("collapsed", "high"), "✕"),
}

ROLES = {"new": "new", "true": "correct"}
HEALTH_WORDS = {
    "healthy": "Healthy",
    "unchecked": "Not checked yet",
    "degrading": "Degrading",
    "collapsed": "Collapsed",
}


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}".replace(",", " ")


def tag(name: str, content: str = "", css: str = "", **attributes: str) -> Markup:
    """An element around `content`. `name` and the attributes' names are the program's own."""
    attributes = {"class": css, **attributes} if css else attributes
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"' for key, value in attributes.items()
    )
    return Markup(f"<{name}{written}>{escape(content)}</{name}>")


def joined(parts: Iterable[str], between: str = "") -> Markup:
    """Pieces one after another, with `between` in each gap."""
    return escape(between).join(parts)


def full_stop(sentence: str) -> str:
    """The sentence with its full stop; one whose last word or quotation ends with a stop of its own gets none."""
    return sentence if sentence.removesuffix("”").endswith((".", "!", "?", "…")) else sentence + "."


def show_token(token: str) -> Markup:
    """A token made visible: the leading space dropped, line breaks, blanks and letters without a space drawn."""
    text = token.removeprefix(" ").replace("\n", "⏎").replace("\t", "⇥")
    if token[:1].isalnum():
        text = "·" + text  # joins the word before it: "·Rome" is not " Rome"
    return escape(text if text.strip() else "␣" * max(1, len(text)))


def marked_prompt(text: str, subject: str | None, where: int | None = None) -> Markup:
    """The prompt in one line with its subject marked (at `where`, or where `place_of` finds it)."""
    at = where
    if subject and at is None:
        with suppress(ValueError):
            at = place_of(subject, text)
    if not subject or at is None:
        return escape(in_one_line(text))
    marked = tag("mark", in_one_line(subject), "el-subject")
    return in_one_line(text[:at]) + marked + in_one_line(text[at + len(subject) :])


def arrow_to(target_new: str) -> Markup:
    """An arrow to the new object, after a prompt."""
    arrow = Markup("<span class='el-arrow' aria-hidden='true'>→</span>")
    return Markup(" {} {}").format(arrow, tag("b", target_new, "el-new"))


def fact_line(fact: Fact) -> Markup:
    """A fact in one line: prompt with the subject marked, arrow, new object."""
    return marked_prompt(fact.text, fact.subject, fact.prompt.index("{}")) + arrow_to(fact.target_new)


def role_of(token: str, new: str | None, true: str | None) -> str:
    """ "new" or "true" when `token` is the first word of that object alone, after a space where its script has spaces.

    A piece of a word begins many words, so it is nobody's.
    """
    bare = token.strip() if token.startswith(" ") or is_without_blanks(token[:1]) else ""
    roles = [role for role, target in (("new", new), ("true", true)) if bare and target and bare in _beginnings(target)]
    return roles[0] if len(roles) == 1 else ""


def _beginnings(target: str) -> tuple[str, ...]:
    """An object, and its first word."""
    return target, *re.findall(r"^\w+", target)


def bars(
    top: Sequence[TokenChance],
    before: Mapping[str, float] | None = None,
    *,
    new: str | None = None,
    true: str | None = None,
    before_name: str = "before",
) -> Markup:
    """Next tokens as bars, with the value of `before` as an outline on the same scale and as a number.

    A token that `before` lacks was less likely than all tokens kept there: that bound is told once, below the bars.
    """
    ranks = _ranks(before)
    rows = []
    for rank, chance in enumerate(top, 1):
        role = role_of(chance.token, new, true)
        fill = tag("span", "", f"el-fill el-fill-{role or 'other'}", style=f"width:{100 * chance.p:.2f}%")
        old = None if before is None else before.get(chance.token)
        if old is not None:
            fill += tag("span", "", "el-outline", style=f"width:{100 * old:.2f}%")
        word = tag("span", show_token(chance.token), "el-token")
        if role:
            word += tag("span", ROLES[role], f"el-role el-role-{role}")
        numbers = tag("span", percent(chance.p), "el-p")
        if before is not None:
            numbers += tag("span", "" if old is None else f"{before_name} {percent(old)}", "el-was")
            word += moved(rank, ranks.get(chance.token), len(ranks))
        track = tag("span", fill, "el-track", aria_hidden="true")
        rows.append(tag("li", tag("span", word, "el-word") + track + tag("span", numbers, "el-numbers")))
    if before and any(chance.token not in before for chance in top):
        words = f"without a number: below {percent(min(before.values()))} {before_name}"
        rows.append(tag("li", tag("span", words, "el-was"), "el-floor"))
    return tag("ul", joined(rows), "el-bars" + (" el-bars-compared" if before is not None else ""))


def _ranks(chances: Mapping[str, float] | None) -> dict[str, int]:
    """Rank by probability, from 1."""
    ordered = sorted((chances or {}).items(), key=lambda item: -item[1])
    return {token: rank for rank, (token, _) in enumerate(ordered, 1)}


def moved(rank: int, was: int | None, known: int) -> Markup:
    """A token's change of rank: "▲ 3" when it rose by three places; nothing when it stayed.

    `known` is the number of tokens kept before; a token that was not among them rose from below.
    """
    if was == rank or not known:
        return Markup()
    if was is None:
        words, sign, css = f"rank {rank}, was not in the top {known}", "▲", "up"
    else:
        words, css = f"rank {rank}, was {was}", "up" if was > rank else "down"
        sign = f"{'▲' if was > rank else '▼'}{abs(was - rank)}"
    seen = tag("span", sign, aria_hidden="true") + tag("span", words, "el-visually-hidden")
    return tag("span", seen, f"el-moved el-moved-{css}", title=words)


def changed_words(before: str | None, now: str) -> Markup:
    """`now`, with the words that differ from `before` marked as inserted."""
    if before is None:
        return escape(now)
    old, new = re.findall(r"\s*\S+", before), re.findall(r"\s*\S+", now)
    parts = []
    for kind, _, _, start, end in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        piece = "".join(new[start:end])
        if kind == "equal":
            parts.append(piece)
        elif piece:
            words = piece.lstrip()
            parts += [piece[: len(piece) - len(words)], tag("ins", words, "el-changed")]
    return joined(parts)


def table(
    caption: str, header: Sequence[str], rows: Iterable[Sequence[str]], groups: str = "", css: str = ""
) -> Markup:
    """A data table; the first cell of a row is its header; `groups` is a row above the header."""
    head = joined(tag("th", cell, scope="col") for cell in header)
    body = joined(
        tag("tr", tag("th", row[0], scope="row") + joined(tag("td", cell) for cell in row[1:])) for row in rows
    )
    inner = tag("caption", caption) + tag("thead", groups + tag("tr", head)) + tag("tbody", body)
    return tag(
        "div", tag("table", inner, f"el-table {css}"), "el-scroll", tabindex="0", role="region", aria_label=caption
    )


def note(text: str, css: str = "el-note") -> Markup:
    """A paragraph."""
    return tag("p", text, css)


def empty(title: str, text: str) -> Markup:
    """Words for an empty place: what will appear there, and what to do for it."""
    return tag("div", tag("b", title) + tag("span", text), "el-empty")


def sparkline(values: Sequence[float], label: str) -> Markup:
    """Probabilities over steps as an inline drawing, 0 at the bottom and 1 at the top."""
    if len(values) < 2:
        return Markup()
    points = " ".join(f"{100 * i / (len(values) - 1):.1f},{29 - 28 * v:.1f}" for i, v in enumerate(values))
    line = tag("polyline", points=points, fill="none", vector_effect="non-scaling-stroke")
    return tag(
        "svg", line, "el-spark", viewBox="0 0 100 30", preserveAspectRatio="none", role="img", aria_label=label
    )  # fmt: skip


def download_link(name: str, kind: str, payload: bytes) -> Markup:
    """A link in the page itself that saves `payload` under `name`; `kind` is its media type."""
    return saving_link(name, f"data:{kind};base64,{base64.b64encode(payload).decode()}", len(payload))


def saving_link(name: str, address: str, n_bytes: int) -> Markup:
    """A link that saves the file at an address under `name`."""
    return tag("a", f"Save {name} ({size(n_bytes)})", "el-link", href=address, download=name)
