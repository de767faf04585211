"""Rewordings and neighbours for a fact that has none: from facts at hand or by rule, for a person to keep or change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from editlab.core.facts import Fact, place_of

REWORDINGS, NEIGHBOURS = 2, 3  # suggested at most
ENDING = 3  # words that two prompts share at their end where they ask about one relation
SAME = 1_000
ARTICLE = "the"
PRONOUNS = {"he", "she", "his", "her", "him", "hers"}  # of some subjects only
PLAIN = {
    *("a", "an", "and", "are", "as", "at", "by", "for", "from", "has", "have", "in", "is", "it", "its", "of", "on"),
    *("that", "the", "their", "this", "to", "was", "were", "which", "with"),
}  # words that carry no content
OPENERS = ("It is well known that {}", "Everybody agrees that {}")


@dataclass(frozen=True)
class Suggestions:
    """Prompts to ask besides a fact's own; `source` says where they are from."""

    rewordings: tuple[str, ...] = ()
    neighbours: tuple[str, ...] = ()
    source: str = ""

    def __bool__(self) -> bool:
        return bool(self.rewordings or self.neighbours)

    def lacking(self, fact: Fact) -> Suggestions:
        """Those of the kinds of which the fact has none itself."""
        rewordings = () if fact.paraphrase_prompts else self.rewordings
        return replace(self, rewordings=rewordings, neighbours=() if fact.neighborhood_prompts else self.neighbours)


def ending(fact: Fact) -> str:
    """The last words of a fact's prompt: what prompts about the same relation may end with."""
    return " ".join(word for word in fact.prompt.split()[-ENDING:] if "{}" not in word)


def suggestions(fact: Fact, known: Iterable[Fact]) -> Suggestions:
    """What else to ask of a typed fact.

    The relation is that of the known facts whose prompt is the same but for the subject, or else ends in the same
    words, the most of them; without a winner there is none. Rewordings are the relation's other prompts with the fact's
    subject, the most used first. Neighbours are other subjects of the relation with the same correct answer, in the
    fact's own words. Where the relation gives too few rewordings, an English sentence is put after an opener.
    """
    known = list(known)
    relations = _relations(fact, known)
    alike = [each for each in known if each.relation in relations]
    found = _rewordings(fact, alike) if len(relations) == 1 else []  # a person comes from a country otherwise
    neighbours = _neighbours(fact, alike)
    source = f"from facts of relation {' and '.join(sorted(relations))}" if found or neighbours else ""
    if len(found) < REWORDINGS and (opened := _opened(fact)):
        found = [*found, *opened][:REWORDINGS]
        source = f"{source}, and your sentence after an opener" if source else "your sentence after an opener"
    return Suggestions(tuple(found), tuple(neighbours), source)


def _relations(fact: Fact, known: Sequence[Fact]) -> set[str]:
    """The relation whose prompts are most like the fact's; its subject decides between equals, or its answers.

    Answers decide between prompts that are the same only: people die and companies sit in the same cities. Where
    these do not decide either, all the relations that ask the same are meant.
    """
    best: dict[str, tuple[int, bool, int]] = {}
    for each in known:
        if each.relation is None:
            continue
        for template in _templates(each):
            if like := _likeness(fact.prompt, template):
                same = len(_answers(each) & _answers(fact)) if like == SAME else 0
                score = (like, each.subject == fact.subject, same)
                best[each.relation] = max(best.get(each.relation, score), score)
    first = max(best.values(), default=None)
    winners = {relation for relation, score in best.items() if score == first}
    return winners if len(winners) == 1 or (first is not None and first[0] == SAME) else set()


def _likeness(prompt: str, template: str) -> int:
    """The number of words that both end with, `SAME` for the same prompt; 0 for too few to tell a relation."""
    mine, other = _words(prompt), _words(template)
    if mine == other:
        return SAME
    if _has_article(prompt) != _has_article(template):
        return 0
    shared = []
    for a, b in zip(reversed(mine), reversed(other), strict=False):
        if a != b or a == "{}":
            break
        shared.append(a)
    return len(shared) if len(shared) >= ENDING and set(shared) - PLAIN else 0


def _rewordings(fact: Fact, alike: Sequence[Fact]) -> list[str]:
    """The prompts of the relation with the fact's subject: its own first, then by how many subjects have them."""
    own = [text for each in alike if each.subject == fact.subject for text in (each.text, *each.paraphrase_prompts)]
    counted = Counter(template for each in alike for template in dict.fromkeys(_templates(each)))
    fitting = [
        template.replace("{}", fact.subject)
        for template, _ in counted.most_common()
        if _has_article(template) == _has_article(fact.prompt) and not PRONOUNS & set(_words(template))
    ]
    texts = dict.fromkeys([*own, *fitting])
    return [text for text in texts if _words(text) != _words(fact.text)][:REWORDINGS]


def _neighbours(fact: Fact, alike: Sequence[Fact]) -> list[str]:
    """Prompts about other subjects with the same correct answer, one of each subject that is known by name."""
    if fact.target_true is None:
        return []
    same = [each for each in alike if each.target_true == fact.target_true and each.subject != fact.subject]
    fitting = [each for each in same if _has_article(each.prompt) == _has_article(fact.prompt)]
    found = [fact.prompt.replace("{}", each.subject) for each in fitting]
    taken = [fact.subject, *(each.subject for each in fitting)]
    more = [each.text for each in same if each not in fitting]
    more += [text for each in same for text in each.neighborhood_prompts]
    more += [text for each in alike if each.subject == fact.subject for text in each.neighborhood_prompts]
    found += [text for text in more if not any(name.casefold() in text.casefold() for name in taken)]
    return list(dict.fromkeys(found))[:NEIGHBOURS]


def _opened(fact: Fact) -> list[str]:
    """An English sentence after an opener; none where its first word may be a name or the sentence is another's."""
    words = _words(fact.prompt)
    first = fact.prompt.split(maxsplit=1)[0]
    if len(PLAIN & set(words)) < 2 or "?" in fact.prompt or "\n" in fact.prompt:
        return []
    if not fact.prompt.lstrip().startswith("{}") and words[0] not in PLAIN:
        return []
    text = fact.text.lstrip()
    if words[0] in PLAIN:
        text = first.lower() + text[len(first) :]
    return [opener.replace("{}", text) for opener in OPENERS]


def _templates(fact: Fact) -> Iterator[str]:
    """The fact's prompt and its paraphrases, with {} for the subject."""
    yield fact.prompt
    for text in fact.paraphrase_prompts:
        if "{" not in text and "}" not in text and fact.subject in text:
            try:
                place = place_of(fact.subject, text)
            except ValueError:
                continue
            yield f"{text[:place]}{{}}{text[place + len(fact.subject) :]}"


def _answers(fact: Fact) -> set[str]:
    return {fact.target_new} | ({fact.target_true} if fact.target_true else set())


def _words(text: str) -> list[str]:
    return text.casefold().split()


def _has_article(template: str) -> bool:
    before = _words(template.partition("{}")[0])
    return before[-1:] == [ARTICLE]
