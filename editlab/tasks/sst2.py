"""SST-2 (GLUE): sentiment of sentences from film reviews, with this project's own shots and wording."""

from editlab.tasks._task import TaskSource

TASK = TaskSource(
    name="sst2",
    title="SST-2",
    template="Review: {sentence}\nSentiment:",
    labels=("negative", "positive"),
    own="sentiment.json",
    fields=("sentence",),
    glue="sst2",
    note="wording and shots are editlab's own",
)
