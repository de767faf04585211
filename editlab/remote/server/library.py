"""What the lab has: methods and tasks, facts to search, a scan to show. The same for every caller."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from editlab.analysis.scanned import ScanTable
from editlab.core.facts import Fact
from editlab.core.info import LabInfo
from editlab.remote.server.parts import TheLab, answer, told

router = APIRouter(tags=["library"])


@router.get("/info", responses=told(LabInfo))
def info(lab: TheLab) -> Response:
    """The model, the methods with their hyperparameters, the tasks and the measures."""
    return answer(lab.info())


@router.get("/facts", responses=told(list[Fact]))
def search(
    lab: TheLab,
    text: Annotated[str, Query(max_length=500, description="Words that all occur.", examples=["mother tongue"])] = "",
    relation: Annotated[str | None, Query(max_length=100, examples=["P103"])] = None,
    case_id: Annotated[str | None, Query(max_length=100, description="A number or a name.", examples=["7"])] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 20,
) -> Response:
    """Facts to edit, of those that the lab knows."""
    return answer(lab.search(text, relation=relation, case_id=case_id, limit=limit))


@router.get("/facts/random", responses=told(Fact))
def random(lab: TheLab, seed: Annotated[int, Query(ge=-(2**53), le=2**53)]) -> Response:
    """One fact; the same for the same seed."""
    return answer(lab.random(seed))


@router.get("/scan", responses=told(ScanTable))
def scan(lab: TheLab) -> Response:
    """The scan that the lab was given to show; null where there is none."""
    return answer(lab.scan())
