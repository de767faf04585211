"""The papers behind a session, to be cited."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

from editlab.report.html import tag


@dataclass(frozen=True)
class Paper:
    """One reference."""

    authors: str
    year: int
    title: str
    arxiv: str
    why: str  # the reason to cite it

    def html(self) -> str:
        link = tag("a", f"arXiv {self.arxiv}", href=f"https://arxiv.org/abs/{self.arxiv}")
        return f"{escape(self.authors)} ({self.year}). {tag('cite', escape(self.title))}. {link}. {escape(self.why)}"


TITLES = {"rome": "ROME", "r-rome": "r-ROME", "memit": "MEMIT", "emmet": "EMMET"}
FORGETTING = Paper(
    "Gupta, Rao, Anumanchipalli",
    2024,
    "Model Editing at Scale leads to Gradual and Catastrophic Forgetting",
    "2401.07453",
    "Many edits one after another, gradual and catastrophic forgetting, disabling edits.",
)
ROME = Paper(
    "Meng, Bau, Andonian, Belinkov",
    2022,
    "Locating and Editing Factual Associations in GPT",
    "2202.05262",
    "ROME, CounterFact, efficacy, paraphrase and neighborhood success, generation entropy.",
)
OF_METHODS = {
    "rome": ROME,
    "r-rome": Paper(
        "Gupta, Baskaran, Anumanchipalli",
        2024,
        "Rebuilding ROME: Resolving Model Collapse during Sequential Model Editing",
        "2403.07175",
        "r-ROME: one key throughout.",
    ),
    "memit": Paper(
        "Meng, Sen Sharma, Andonian, Belinkov, Bau",
        2023,
        "Mass-Editing Memory in a Transformer",
        "2210.07229",
        "MEMIT: many facts, several layers.",
    ),
    "emmet": Paper(
        "Gupta, Sajnani, Anumanchipalli",
        2024,
        "A Unified Framework for Model Editing",
        "2403.14236",
        "EMMET: an equality constraint for many facts.",
    ),
}


def papers_of(methods: Iterable[str]) -> list[Paper]:
    """The papers behind a session with these methods; two of them, on measures and on forgetting, behind every one."""
    return list(dict.fromkeys([*(OF_METHODS[name] for name in methods if name in OF_METHODS), ROME, FORGETTING]))


def title_of(method: str | None) -> str:
    """ "ROME" for "rome"; the name itself of any other method."""
    return TITLES.get(method or "", method or "")
