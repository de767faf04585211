"""Free answers, judged: where an answer ends, and whether it says an object, in the words of both.

Words are compared in one form: NFKC, case folded, without articles, possessive endings and punctuation, and with single
blanks. The normalisation follows SQuAD's (Rajpurkar et al. 2016, arXiv 1606.05250), but dashes and slashes separate
words. In scripts without blanks between words an object is looked for as a substring.
"""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

from editlab.core.joining import is_without_blanks

MOST_TOKENS = 50  # of an answer
ARTICLES = ("a", "an", "the")

_END = re.compile(r"\n|[。！？]|[.!?](?=\s)")
_NAMES = "bros|capt|col|dr|fr|ft|gen|gov|inc|jr|lt|ltd|mr|mrs|ms|mt|prof|rev|sgt|sr|st"
_ABBREVIATION = re.compile(rf"\b([^\W\d_]|{_NAMES})\.$", re.IGNORECASE)  # ends no sentence
_QUESTION = re.compile(r"[?？؟][\s\"'”’)]*((a|answer)\s*:)?\s*$", re.IGNORECASE)


def end_of_answer(text: str) -> int | None:
    """The index at which a continuation's first line or sentence is complete; None while it is not.

    A full stop after a single letter or an abbreviation of a name ("U.S. ", "St. ") does not end a sentence.
    """
    for end in _END.finditer(text):
        if end[0] == "\n":
            return end.start()
        if not _ABBREVIATION.search(text, 0, end.end()):
            return end.end()
    return None


def answer_in(text: str) -> str:
    """The answer that a continuation begins with: its first sentence or line, or all of it, without outer blanks."""
    return text[: end_of_answer(text)].strip()


def is_question(prompt: str) -> bool:
    """Whether a prompt asks a question, at most followed by "A:" or "Answer:"; otherwise it is a cloze."""
    return _QUESTION.search(prompt) is not None


def words_of(text: str) -> list[str]:
    """A text's words in the form in which they are compared; articles stay if there is nothing else."""
    text = unicodedata.normalize("NFKC", text).casefold().replace("\u2019", "'")
    text = re.sub(r"(?<=\w)'s\b", "", text)
    text = re.sub(r"'|(?<=\d)[.,](?=\d)|(?<=\b[^\W\d_])\.", "", text)
    words = "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in text).split()
    return [word for word in words if word not in ARTICLES] or words


class Verdict(NamedTuple):
    """How an answer says an object."""

    exact: bool  # the answer is the object
    begins: bool  # it begins with the object, as whole words
    contains: bool  # the object occurs in it, as whole words

    def says(self, prompt: str) -> bool:
        """The verdict that counts for this prompt: `contains` for a question, `begins` for a cloze."""
        return self.contains if is_question(prompt) else self.begins


def judged(answer: str, target: str) -> Verdict:
    """How this answer says the object."""
    said, wanted = words_of(answer), words_of(target)
    if any(map(is_without_blanks, target)):
        text, part = "".join(said), "".join(wanted)
        return Verdict(text == part, text.startswith(part), part in text)
    n = len(wanted)
    if not n:
        return Verdict(False, False, False)
    return Verdict(said == wanted, said[:n] == wanted, any(said[i : i + n] == wanted for i in range(len(said))))
