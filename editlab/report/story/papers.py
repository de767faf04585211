"""What a session rests on, to be cited, and what its methods are called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from markupsafe import Markup

from editlab.core.info import MethodInfo, Paper
from editlab.report.html import joined, tag

Methods = Mapping[str, MethodInfo]  # by name

FORGETTING = Paper(
    "Gupta, Rao, Anumanchipalli",
    2024,
    "Model Editing at Scale leads to Gradual and Catastrophic Forgetting",
    "Many edits one after another, gradual and catastrophic forgetting, disabling edits.",
    "2401.07453",
)
MEASURES = Paper(
    "Meng, Bau, Andonian, Belinkov",
    2022,
    "Locating and Editing Factual Associations in GPT",
    "ROME, CounterFact, efficacy, paraphrase and neighborhood success, generation entropy.",
    "2202.05262",
)


def papers_of(names: Iterable[str | None], methods: Methods) -> list[Paper]:
    """The papers behind a session by these methods; those of its measures and of forgetting are behind each."""
    own = [methods[name].paper for name in names if name and name in methods]
    papers = [*(paper for paper in own if paper is not None), MEASURES, FORGETTING]
    return list({paper.link: paper for paper in papers}.values())


def cited(paper: Paper) -> Markup:
    """A reference; its address is a link only where it is one of the web."""
    name = f"arXiv {paper.arxiv}" if paper.arxiv and not paper.url else paper.link
    web = paper.link.startswith(("https://", "http://"))
    link = tag("a", name, href=paper.link) if web else name
    told = Markup("{} ({}). {}.").format(paper.authors, paper.year, tag("cite", paper.title))
    return joined((part for part in (told, link + "." if name else "", paper.why) if part), " ")


def title_of(name: str | None, methods: Methods) -> str:
    """ "ROME" for "rome"; the name itself of a method that is not known."""
    return methods[name].title if name and name in methods else name or ""
