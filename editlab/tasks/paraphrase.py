"""Whether two sentences, written for this project, mean the same."""

from editlab.tasks._task import TaskSource

TASK = TaskSource(
    name="paraphrase",
    title="Paraphrase (editlab's own)",
    template="Sentence 1: {sentence1}\nSentence 2: {sentence2}\nDo they mean the same?",
    labels=("No", "Yes"),
    own="paraphrase.json",
    fields=("sentence1", "sentence2"),
)
