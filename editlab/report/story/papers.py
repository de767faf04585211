"""What a session rests on, to be cited, and what its methods are called."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from markupsafe import Markup

from editlab import __version__
from editlab.core.info import MethodInfo, Paper
from editlab.core.records import Step
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
STOPPING = Paper(
    "Gupta, Prateepamornkul, Lu, Alaa, Hartvigsen, Anumanchipalli",
    2025,
    "Lifelong Knowledge Editing requires Better Regularization",
    "A search that stops once the new object is the likeliest.",
    "2502.01636",
)
ANCHORING = Paper(
    "Liu, Zhu, Miao, Fujisawa",
    2026,
    "Norm Anchors Make Model Edits Last",
    "Values scaled to the norm of the unedited model’s own.",
    "2602.02543",
)
SWITCHES = {"stop_after": STOPPING, "anchored": ANCHORING}  # hyperparameters of any method that are from a paper


def papers_of_steps(steps: Iterable[Step], methods: Methods) -> list[Paper]:
    """The papers behind these steps: of their methods, and of the switches that are on."""
    edits = [step for step in steps if step.facts]
    used = [paper for name, paper in SWITCHES.items() if any(step.hyperparameters.get(name) for step in edits)]
    papers = papers_of(dict.fromkeys(step.method for step in edits), methods)
    return papers + [paper for paper in used if paper.link not in {each.link for each in papers}]


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


def bibtex(papers: Iterable[Paper]) -> str:
    """The papers, and editlab itself, as BibTeX; authors are told by their last names."""
    found: dict[str, str] = {}
    for paper in papers:
        first = re.sub(r"\W", "", paper.authors.split(",")[0]).lower() or "unknown"
        key = _free(f"{first}{paper.year}", found)
        where = [f"eprint = {{{_escaped(paper.arxiv)}}}", "archiveprefix = {arXiv}"] if paper.arxiv else []
        address = [f"url = {{{_escaped(paper.link)}}}"] if paper.link else []
        found[key] = _entry(
            "misc",
            key,
            f"author = {{{' and '.join(_escaped(name.strip()) for name in paper.authors.split(','))}}}",
            f"title = {{{{{_escaped(paper.title)}}}}}",
            f"year = {{{paper.year}}}",
            *where,
            *address,
        )
    itself = (
        "title = {{editlab: a laboratory for knowledge editing in language models}}",
        f"version = {{{__version__}}}",
    )
    return "\n".join([*found.values(), _entry("software", "editlab", *itself)])


def _free(key: str, taken: Iterable[str]) -> str:
    """The key, with a letter after it where it is taken: meng2022, meng2022b."""
    taken = set(taken)
    return next(
        each for each in (key, *(f"{key}{letter}" for letter in "bcdefghijklmnopqrstuvwxyz")) if each not in taken
    )


def _entry(kind: str, key: str, *fields: str) -> str:
    return f"@{kind}{{{key},\n" + "".join(f"  {each},\n" for each in fields) + "}\n"


def _escaped(text: str) -> str:
    """A text in BibTeX; a brace or a backslash in it could end the field."""
    return re.sub(r"([&%#_$])", r"\\\1", re.sub(r"[{}\\\n]", " ", text))


def title_of(name: str | None, methods: Methods) -> str:
    """ "ROME" for "rome"; the name itself of a method that is not known."""
    return methods[name].title if name and name in methods else name or ""
