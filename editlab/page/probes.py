"""What came of probes, as records."""

from __future__ import annotations

from dataclasses import dataclass

from editlab.core.progress import Progress
from editlab.core.records import Probe
from editlab.page.wants import Order


@dataclass(frozen=True)
class ProbeResult:
    """One probe, or the problem that prevented it."""

    order: Order
    method: str
    probe: Probe | None = None
    problem: str = ""


@dataclass(frozen=True)
class Probes:
    """All probes, oldest first, and the progress of the running one."""

    tried: tuple[ProbeResult, ...] = ()
    progress: Progress | None = None
    method: str = ""  # of the running probe
    number: int = 0  # of the running probe, from 1
    of: int = 0
    waiting: bool = False
