"""`editlab backend` in which an edit of one subject reads beyond a tensor's end: on a GPU, a device-side assert.

What is left of a process after that can serve no one on that device. `python -m benchmarks.gpu.asserting backend ...`
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

SUBJECT = "The broken device"


def assert_on_the_device() -> None:
    """From now on an edit of SUBJECT breaks the device's context."""
    import torch

    from editlab.editing.editor import Editor

    compute = Editor.compute

    def asserting(self: Editor, facts: Sequence[Any], *rest: Any, **named: Any) -> Any:
        if any(fact.subject == SUBJECT for fact in facts):
            device = self.model.device
            torch.zeros(1, device=device)[torch.ones(1, dtype=torch.long, device=device)].cpu()
        return compute(self, facts, *rest, **named)

    Editor.compute = asserting  # type: ignore[method-assign]


if __name__ == "__main__":
    from editlab.cli import app
    from editlab.cli.supervised import end_with_parent

    assert_on_the_device()
    end_with_parent()
    app()
