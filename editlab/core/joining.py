"""How an object follows its prompt: after a blank, or directly where the script is written without blanks."""

from __future__ import annotations

import unicodedata

WITHOUT_BLANKS = ("CJK ", "HIRAGANA", "KATAKANA", "BOPOMOFO", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")
WIDE_PUNCTUATION = ("IDEOGRAPHIC", "FULLWIDTH", "HALFWIDTH", "LEFT CORNER", "RIGHT CORNER", "LEFT BLACK LENTICULAR")


def joint(prompt: str, target: str) -> str:
    """What stands between a prompt and its object: "" or " ".

    Nothing, where the prompt ends in white space of its own, or in a character of a script that is written without
    blanks between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese, Tibetan) or in such a script's punctuation; or
    where the prompt's last letter and the object's first one are of such scripts, whatever marks are between them.
    """
    if not prompt:
        return " "
    last = prompt[-1]
    if last.isspace() or _is_without_blanks(last) or unicodedata.name(last, "").startswith(WIDE_PUNCTUATION):
        return ""
    before = next((c for c in reversed(prompt) if c.isalnum()), "")
    after = next((c for c in target if c.isalnum()), "")
    return "" if before and after and _is_without_blanks(before) and _is_without_blanks(after) else " "


def joined(prompt: str, target: str) -> str:
    """The prompt and its object as one text."""
    return prompt + joint(prompt, target) + target


def _is_without_blanks(character: str) -> bool:
    return unicodedata.name(character, "").startswith(WITHOUT_BLANKS)
