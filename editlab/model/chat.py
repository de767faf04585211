"""The chat template that comes with a model's tokenizer."""

from __future__ import annotations

from jinja2 import TemplateError

from editlab.core.chat import ChatFrame
from editlab.model.model import EditableModel

MESSAGE = "MESSAGE-OF-THE-USER"  # found again in what the template makes of it


def chat_of(model: EditableModel) -> ChatFrame:
    """What the model's template sets around a single message of a user, up to where the answer begins.

    Raises ValueError for a model without a template, and for a template that cannot be used so.
    """
    tokenizer = model.tokenizer
    if not getattr(tokenizer, "chat_template", None):
        raise ValueError(f"{model.name} has no chat template: its tokenizer comes without one, so prompts stay plain")
    try:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": MESSAGE}], tokenize=False, add_generation_prompt=True
        )
    except (TemplateError, ValueError, TypeError) as error:
        raise ValueError(f"the chat template of {model.name} cannot be used: {error}") from None
    before, *after = text.split(MESSAGE)
    if len(after) != 1:
        raise ValueError(f"the chat template of {model.name} must hold a message once, not {len(after)} times")
    start = model.tokens(before).ids[:2]
    if len(start) == 2 and start[0] == start[1] == tokenizer.bos_token_id:
        before = before.removeprefix(tokenizer.bos_token)  # the tokenizer sets it before every text
    return ChatFrame(before, after[0])
