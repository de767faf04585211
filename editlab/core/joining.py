"""How an object is joined to its prompt: by the script's rule, or as a fact chooses."""

from __future__ import annotations

import unicodedata

AUTO, BLANK, NOTHING = "auto", "blank", "nothing"
JOINTS = {AUTO: None, BLANK: " ", NOTHING: ""}  # a fact's choices, and what each puts between prompt and object

Question = tuple[str, ...]  # a prompt, an object that may follow it, and the choice where it differs from "auto"


WITHOUT_BLANKS = ("CJK ", "HIRAGANA", "KATAKANA", "BOPOMOFO", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")
OPENING = ("Ps", "Pi")  # Unicode's categories of opening brackets and quotation marks
WIDE_PUNCTUATION = ("IDEOGRAPHIC", "FULLWIDTH", "HALFWIDTH", "RIGHT CORNER", "RIGHT DOUBLE ANGLE")


def check_joint(chosen: object) -> None:
    """Check what should be one of `JOINTS`. Raises ValueError."""
    if not (isinstance(chosen, str) and chosen in JOINTS):
        raise ValueError(f"joined_by must be one of {', '.join(JOINTS)}, got {chosen!r:.100}")


def joint(prompt: str, target: str, chosen: str = AUTO) -> str:
    """The separator between a prompt and its object: "" or " ", as one of `JOINTS` chooses.

    By "auto", it is "" if the prompt ends in white space, in an opening bracket or quotation mark, in a character of a
    script without blanks between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese, Tibetan) or in such a script's
    punctuation; or if the prompt's last letter and the object's first one are of such scripts.
    """
    if (between := JOINTS[chosen]) is not None:
        return between
    if not prompt:
        return " "
    last = prompt[-1]
    if last.isspace() or unicodedata.category(last) in OPENING:
        return ""
    if is_without_blanks(last) or unicodedata.name(last, "").startswith(WIDE_PUNCTUATION):
        return ""
    before = next((c for c in reversed(prompt) if c.isalnum()), "")
    after = next((c for c in target if c.isalnum()), "")
    return "" if is_without_blanks(before) and is_without_blanks(after) else " "


def is_direct(prompt: str, target: str, chosen: str = AUTO) -> bool:
    """Whether an object follows its prompt without any white space between them, the prompt's own included."""
    return not prompt[-1:].isspace() and not joint(prompt, target, chosen)


def joined(prompt: str, target: str, chosen: str = AUTO) -> str:
    """The prompt and its object as one text."""
    return prompt + joint(prompt, target, chosen) + target


def question(prompt: str, target: str, chosen: str = AUTO) -> Question:
    """The question whether an object follows its prompt, joined as one of `JOINTS` chooses."""
    return (prompt, target) if joint(prompt, target, chosen) == joint(prompt, target) else (prompt, target, chosen)


def is_without_blanks(character: str) -> bool:
    """Whether a character belongs to a script without blanks between words; "" belongs to none."""
    return bool(character) and unicodedata.name(character, "").startswith(WITHOUT_BLANKS)
