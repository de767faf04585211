"""Probabilities of objects in words. An object of several tokens has two: their mean, and that of all of them."""

from __future__ import annotations

import math
from collections.abc import Callable


def chance(p: float | None, joint: float | None, form: Callable[[float | None], str]) -> str:
    """The probability of an object: of one token as it is, of several the (geometric) mean per token and the joint one.

    `form` writes a number. Without the joint one, as in what earlier versions measured, the mean stands alone.
    """
    if p is None or joint is None or math.isclose(p, joint, rel_tol=1e-6):
        return form(p)
    return f"{form(p)} per token, {form(joint)} for all"
