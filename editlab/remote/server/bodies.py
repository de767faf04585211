"""What requests hold: types and bounds. What they mean is checked by the lab, and its limits too."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr

from editlab.core.facts import Fact

MOST = 1_000  # things in a list; the lab's own limits are lower

Index = Annotated[StrictInt, Field(ge=0, le=1_000_000, description="Number of a step; 0 is the unedited model.")]
Name = Annotated[str, Field(max_length=200, examples=["rome"])]
Text = Annotated[str, Field(max_length=20_000)]
Names = Annotated[list[Name], Field(max_length=MOST)]
Whole = Annotated[StrictInt, Field(ge=-1_000_000_000, le=1_000_000_000)]
Number = Whole | Annotated[StrictFloat, Field(allow_inf_nan=False)]
Setting = (
    Number | StrictBool | Annotated[StrictStr, Field(max_length=200)] | Annotated[list[Whole], Field(max_length=MOST)]
)
Changes = Annotated[
    dict[Name, Setting],
    Field(
        max_length=100, description="Changed hyperparameters by name; `GET /info` tells them.", examples=[{"layer": 6}]
    ),
]
FACT: dict[str, Any] = {
    "prompt": "{} is located in the city of",
    "subject": "The Eiffel Tower",
    "target_new": "Rome",
    "target_true": "Paris",
}
OneFact = Annotated[Fact, Field(examples=[FACT])]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class NameBody(Body):
    name: Text = Field(default="", examples=["Capitals"])


class KeysBody(Body):
    keys: Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=MOST)]


class DuplicateBody(NameBody):
    index: Index | None = Field(default=None, description="As far as this step; the one in force without it.")


class IndexBody(Body):
    index: Annotated[Index, Field(examples=[1])]


class WatchBody(Body):
    prompts: Annotated[list[Text], Field(max_length=MOST, examples=[["The Eiffel Tower is in"]])]


class PlanBody(Body):
    every: Annotated[dict[Name, Whole], Field(max_length=MOST, examples=[{"perplexity": 1, "retention": 5}])]


class PreviewBody(Body):
    fact: OneFact


class FactsBody(Body):
    facts: Annotated[list[Fact], Field(max_length=MOST, examples=[[FACT]])]


class EditBody(FactsBody):
    method: Name = "rome"
    hyperparameters: Changes = {}
    guard: Name = Field(default="warn", examples=["refuse"], description="warn, refuse, r-rome or off.")
    guard_level: Name = Field(default="high", examples=["high"], description="raised or high.")


class RiskBody(Body):
    fact: OneFact
    methods: Names = []
    hyperparameters: Annotated[dict[Name, Changes], Field(max_length=100, examples=[{"rome": {"layer": 6}}])] = {}


class ProbeBody(Body):
    fact: OneFact
    method: Name = "rome"
    hyperparameters: Changes = {}
    earlier: Names = []
    later: Names = []
    anew: StrictBool = False
    names: Names = Field(default=[], examples=[["perplexity"]])


class MeasureBody(Body):
    names: Names = Field(default=[], examples=[["retention", "sentiment"]])
    index: Index | None = None
