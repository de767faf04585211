"""The guard's settings: a risky edit is made with a warning, refused, or made with a safer method."""

from __future__ import annotations

from editlab.core.guarding import FALL_BACK, REFUSE, WARN
from editlab.page.controls import box, choice, html
from editlab.page.wants import GuardBy, Say
from editlab.report.html import note

GUARDS = {
    WARN: ("Warn", ""),
    REFUSE: ("Refuse the edit", "The guard is set to refuse: Apply will not make this edit."),
    FALL_BACK: ("Fall back to a safer method", "The guard is set to fall back: Apply will make this edit with {}."),
}
NO_FALLBACK = "The guard is set to fall back, but this method has nothing to fall back to: Apply will make this edit."
ABOUT = "The risk is told beforehand in any case. What the guard did is noted with the edit."


class GuardForm:
    def __init__(self, say: Say) -> None:
        self._say = say
        self.action = choice("Guard: a risky edit", [(title, name) for name, (title, _) in GUARDS.items()])
        self.from_level = choice("Risky is", [("high", "high"), ("raised or high", "raised")])
        fields = box([self.action, self.from_level], "el-fields el-fields-2")
        self.widget = box([fields, html(note(ABOUT))], "el-guard")
        for control in (self.action, self.from_level):
            control.observe(self._changed, "value")

    def take_over(self, other: GuardForm) -> None:
        """Hold what stands in another form."""
        self.action.value, self.from_level.value = other.action.value, other.from_level.value

    def _changed(self, _: object) -> None:
        self._say(GuardBy(self.action.value, self.from_level.value))


def guard_words(name: str, fallback: str | None) -> str:
    """What a guard does to a risky edit by a method with the fallback of that title; "" where it only warns."""
    return NO_FALLBACK if name == FALL_BACK and fallback is None else GUARDS[name][1].format(fallback)
