"""The norm anchor: how long the unedited model's own values are (NAS, Liu et al. 2026, arXiv 2602.02543).

A method that is `anchored` scales its values to it. It is the mean of ‖v*‖, the MLP's output at the subject's last
token with δ, over pilot facts of this project, the longest 5 % left out; each is searched for as if alone, in the bare
prompt, with the method's own search. It is kept beside the model's second moments. The reference code takes 1000
pilots, and computes the anchor from whatever weights are there at the first edit.
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import torch

from editlab.core.disk import read_json, write_json
from editlab.core.fact_files import facts_of
from editlab.core.facts import Fact
from editlab.core.paths import cache_dir
from editlab.core.progress import OnProgress, Progress, quiet
from editlab.methods._value import SearchMethod
from editlab.model.fast.precision import in_full_float32
from editlab.model.model import EditableModel

PILOTS = 100
LEFT_OUT = 0.05  # the share of the longest
SEARCH = ("steps", "learning_rate", "weight_decay", "clamp", "kl_weight")  # hyperparameters that decide an anchor

log = logging.getLogger(__name__)


def anchor_of(
    model: EditableModel, method: SearchMethod, report: OnProgress = quiet, cache: Path | None = None
) -> float:
    """The anchor for a method's last edited layer and its search, from the cache or else measured and kept."""
    pilots = pilots_for(model)
    settings = {name: getattr(method, name) for name in SEARCH}
    facts = [fact.to_json() for fact in pilots]
    what = json.dumps([method.part, method.edited_layers[-1], settings, LEFT_OUT, facts], sort_keys=True)
    digest = hashlib.sha256(what.encode()).hexdigest()[:16]
    file = (cache or cache_dir()) / "moments" / model.fingerprint() / f"anchor-{digest}.json"
    if file.exists():
        try:
            return float(read_json(file)["norm"])
        except (ValueError, KeyError, TypeError) as error:
            log.warning("the norm anchor in %s cannot be read and is measured anew: %s", file, error)
    norms = norms_of(model, method, pilots, report)
    norm = trimmed_mean(norms)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, {"norm": norm, "pilots": len(norms)})
    except OSError as error:
        log.warning("the norm anchor could not be kept: %s", error)
    return norm


def pilots_for(model: EditableModel) -> list[Fact]:
    """This project's own facts that the model can take, at most PILOTS of them, always the same."""
    known = []
    for fact in facts_of(None).facts:
        try:
            model.check(fact)
        except ValueError:
            continue
        known.append(fact)
    return random.Random(0).sample(known, min(PILOTS, len(known)))


def norms_of(model: EditableModel, method: SearchMethod, facts: list[Fact], report: OnProgress = quiet) -> list[float]:
    """‖v*‖ of every fact, searched for alone on the unedited model, in the bare prompt."""
    layer = method.edited_layers[-1]
    plain = replace(method, anchored=False, stop_after=0)

    def tell(inner: Progress) -> None:
        report(replace(inner, stage=f"measuring the norm anchor: {inner.stage}"))

    norms: list[float] = []
    with model.unedited(), in_full_float32():
        for value in plain.values(model, facts, ("{}",), tell):
            with torch.no_grad():
                output = model.projection(layer)(value.keys[:1].to(model.dtype))[0].float()
            norms.append(float((output + value.delta).norm()))
    return norms


def trimmed_mean(norms: list[float]) -> float:
    """The mean without the longest LEFT_OUT of them, rounded down."""
    kept = sorted(norms)[: len(norms) - int(LEFT_OUT * len(norms))]
    return fmean(kept)
