"""When an edit is disabling, and how many of a scan's disabling edits their risk foretold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from editlab.analysis.scores import wilson
from editlab.core.record import Record
from editlab.core.records import LEVELS

if TYPE_CHECKING:
    from pandas import DataFrame

HARMFUL, DISABLING = 1.5, 2.0  # perplexity ÷ the unedited model's: an edit is harmful, or disabling, from here on
AS_LARGE = 1.0  # ‖ΔW‖ ÷ ‖W₀‖ from which on an edit is outstanding; in GPT-2 XL 0.05 to 0.09 are ordinary
RULES = {"token_level": "tokens", "level": "keys"}  # column of a scan -> source of the level


def is_disabling(perplexity: float, unedited: float) -> bool:
    """Whether a model with this perplexity is disabled; a perplexity that is not a number counts as disabled."""
    return not perplexity / unedited < DISABLING


@dataclass(frozen=True)
class Foresight(Record):
    """One alarm compared with the outcomes. Intervals are Wilson's, 95 %; None where the denominator is 0."""

    rule: str  # source of the level: "tokens" or "keys"
    alarm: str  # the level from which on the alarm rings: "raised" or "high"
    n: int  # facts
    disabling: int
    foreseen: int  # disabling, with an alarm
    missed: int  # disabling, without an alarm
    false_alarms: int  # an alarm, but not disabling
    precision: float | None  # foreseen ÷ all alarms
    precision_interval: tuple[float, float] | None
    recall: float | None  # foreseen ÷ disabling
    recall_interval: tuple[float, float] | None


def foresights(scanned: DataFrame) -> tuple[Foresight, ...]:
    """The foresight of both rules with each alarm, from the table of a scan."""
    return tuple(_foresight(scanned, column, alarm) for column in RULES for alarm in LEVELS[1:])


def _foresight(scanned: DataFrame, column: str, alarm: str) -> Foresight:
    rang = scanned[column].isin(LEVELS[LEVELS.index(alarm) :])
    happened = scanned["disabling"].astype(bool)
    foreseen = int((rang & happened).sum())
    alarms, disabling = int(rang.sum()), int(happened.sum())
    return Foresight(
        rule=RULES[column],
        alarm=alarm,
        n=len(scanned),
        disabling=disabling,
        foreseen=foreseen,
        missed=disabling - foreseen,
        false_alarms=alarms - foreseen,
        precision=foreseen / alarms if alarms else None,
        precision_interval=wilson(foreseen, alarms) if alarms else None,
        recall=foreseen / disabling if disabling else None,
        recall_interval=wilson(foreseen, disabling) if disabling else None,
    )
