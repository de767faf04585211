"""Probabilities of objects in words. An object of several tokens has two: that of all of them, and their mean."""

from __future__ import annotations

import math
from collections.abc import Callable


def chance(p: float | None, joint: float | None, form: Callable[[float | None], str]) -> str:
    """The probability of an object; of several tokens the joint one, with the (geometric) mean per token beside it.

    `form` writes a number. Without the joint one, as in what earlier versions measured, the mean stands alone.
    """
    if p is None or (joint is not None and math.isclose(p, joint, rel_tol=1e-6)):
        return form(p)
    return f"{form(p)} per token" if joint is None else f"{form(joint)} ({form(p)} per token)"
