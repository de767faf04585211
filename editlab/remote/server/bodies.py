"""The contents of requests: types and bounds of the calls' arguments. The lab checks their meaning and its limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    create_model,
)

from editlab.core.facts import Fact, case_id_of
from editlab.remote.wire import Call

CONFIG = ConfigDict(extra="forbid", hide_input_in_errors=True)
MOST = 1_000  # items in a list; the lab's own limits are lower

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


def _typed(given: Any) -> Any:
    """A fact as typed, normalised: the subject may stand for {}, a text for a list of one, null or "" for nothing."""
    if not isinstance(given, Mapping):
        return given
    fact = dict(given)
    for name in ("paraphrase_prompts", "neighborhood_prompts", "generation_prompts"):
        if name in fact and (fact[name] is None or isinstance(fact[name], str)):
            fact[name] = [fact[name]] if fact[name] else []
    if fact.get("target_true") == "":
        fact["target_true"] = None
    if "case_id" in fact:
        fact["case_id"] = case_id_of(fact["case_id"])
    if all(isinstance(fact.get(name), str) for name in ("prompt", "subject", "target_new")):
        fact["prompt"] = Fact.typed(fact["prompt"], fact["subject"], fact["target_new"]).prompt
    return fact


OneFact = Annotated[Fact, BeforeValidator(_typed), Field(examples=[FACT])]
Wide = Annotated[int, Field(ge=-(2**53), le=2**53)]

# The type of an argument in a request, by the argument's name in the protocol.
TYPES: Mapping[str, Any] = {
    "name": Annotated[Text, Field(examples=["Capitals"])],
    "lesson": Annotated[Text, Field(examples=["2 of 5 in Side effects"])],
    "keys": Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=MOST)],
    "index": Annotated[Index, Field(examples=[1])],
    "prompts": Annotated[list[Text], Field(max_length=MOST, examples=[["The Eiffel Tower is in"]])],
    "every": Annotated[dict[Name, Whole], Field(max_length=MOST, examples=[{"perplexity": 1, "retention": 5}])],
    "fact": OneFact,
    "facts": Annotated[list[OneFact], Field(max_length=MOST, examples=[[FACT]])],
    "method": Name,
    "methods": Names,
    "hyperparameters": Changes,
    "guard": Annotated[Name, Field(examples=["refuse"], description="warn, refuse, r-rome or off.")],
    "guard_level": Annotated[Name, Field(examples=["high"], description="raised or high.")],
    "earlier": Names,
    "later": Names,
    "anew": StrictBool,
    "temporary": StrictBool,
    "names": Annotated[Names, Field(examples=[["perplexity"]])],
    "text": Annotated[str, Field(max_length=500, description="Words that all occur.", examples=["mother tongue"])],
    "since": Annotated[str, Field(max_length=100, description="A `version` from an earlier answer.")],
    "relation": Annotated[str, Field(max_length=100, examples=["P103"])],
    "prompt": Annotated[Text, Field(examples=["The Eiffel Tower is located in the city of"])],
    "subject": Annotated[Text, Field(examples=["Eiffel Tower"])],
    "target_new": Annotated[Name, Field(examples=["Rome"])],
    "target_true": Annotated[Name, Field(examples=["Paris"])],
    "joined_by": Annotated[Name, Field(examples=["auto"], description="auto, blank or nothing.")],
    "every_token": StrictBool,
    "corruption": Annotated[Name, Field(examples=["noise"], description="noise or replacement.")],
    "kind": Annotated[Name, Field(examples=["block"], description="block, mlp or attention.")],
    "window": Annotated[StrictInt, Field(ge=1, le=1000, description="Layers restored together; 1 for blocks.")],
    "answer": Annotated[Name, Field(examples=["true"], description="true, new or said.")],
    "rank": Annotated[StrictInt, Field(ge=1, le=1_000_000, description="Singular values kept; default: exact.")],
    "case_id": Annotated[str, Field(max_length=100, description="A number or a name.", examples=["7"])],
    "limit": Annotated[int, Field(ge=1, le=500)],
    "seed": Wide,
}
OF_CALLS: Mapping[str, Mapping[str, Any]] = {  # calls in which an argument's name means something else
    "risk": {
        "hyperparameters": Annotated[
            dict[Name, Changes], Field(max_length=100, examples=[{"rome": {"layer": 6}}], description="By method.")
        ]
    },
    "anew": {"index": Annotated[Index, Field(examples=[0], description="The edits after this step are made again.")]},
}


def request_of(call: Call) -> type[BaseModel] | None:
    """The model of a call's request (body or query), with the call's defaults; None for a call without arguments.

    Optional arguments may also be null.
    """
    fields: dict[str, Any] = {}
    for name, parameter in call.takes.items():
        kind = OF_CALLS.get(call.name, TYPES).get(name, TYPES[name])
        if parameter.default is parameter.empty:
            fields[name] = kind, ...
        else:
            fields[name] = kind if parameter.default is not None else kind | None, parameter.default
    title = "".join(part.capitalize() for part in call.name.split("_")) + "Request"
    return create_model(title, __config__=CONFIG, **fields) if fields else None
