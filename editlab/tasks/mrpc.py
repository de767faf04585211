"""MRPC (GLUE): whether two sentences from the news mean the same, with this project's own shots and wording."""

from editlab.tasks._task import TaskSource

TASK = TaskSource(
    name="mrpc",
    title="MRPC",
    template="{sentence1}\n{sentence2}\nIs the second sentence another way of saying the first?",
    labels=("No", "Yes"),
    own="paraphrase.json",
    fields=("sentence1", "sentence2"),
    glue="mrpc",
    note="wording and shots are editlab's own",
)
