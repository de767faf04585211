"""Verdicts as pills: a word in its colour, and a shape that says the same without colour."""

from __future__ import annotations

from markupsafe import Markup

from editlab.core.records import Health
from editlab.report.html import HEALTH_WORDS, SIGNS, tag


def is_checking(health: Health | None, measuring: bool) -> bool:
    """Whether a session is not judged yet, but will be by what is being measured."""
    return measuring and (health is None or health.status == "unchecked")


def health_pill(health: Health | None, measuring: bool = False) -> Markup:
    """The pill of a session's health; empty where the session has not been judged, and is not being measured."""
    if is_checking(health, measuring):
        return status_pill("unchecked", "Checking")
    return status_pill(health.status, HEALTH_WORDS[health.status]) if health else Markup()


def status_pill(status: str, word: str, title: str = "") -> Markup:
    """A word with the sign and the colour of a status of health; `title` is its tooltip."""
    return _pill(SIGNS[status], word, f"el-health-{status}", title)


def risk_pill(level: str) -> Markup:
    """The pill of a level of risk."""
    return _pill(SIGNS[level], level.capitalize(), f"el-risk-{level}")


def _pill(sign: str, word: str, css: str, title: str = "") -> Markup:
    words = tag("span", sign, aria_hidden="true") + f" {word}"
    return tag("span", words, f"el-health {css}", **({"title": title} if title else {}))
