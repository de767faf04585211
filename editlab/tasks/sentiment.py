"""Sentiment of short reviews written for this project."""

from editlab.tasks._task import TaskSource

TASK = TaskSource(
    name="sentiment",
    title="Sentiment (editlab's own)",
    template="Review: {sentence}\nSentiment:",
    labels=("negative", "positive"),
    own="sentiment.json",
    fields=("sentence",),
)
