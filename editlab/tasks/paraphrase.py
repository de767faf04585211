"""Whether two sentences, written for this project, mean the same."""

from editlab.tasks._task import TaskSource

TASK = TaskSource(
    name="paraphrase",
    title="Paraphrase (editlab's own)",
    template="{sentence1}\n{sentence2}\nIs the second sentence another way of saying the first?",
    labels=("No", "Yes"),
    own="paraphrase.json",
    fields=("sentence1", "sentence2"),
)
