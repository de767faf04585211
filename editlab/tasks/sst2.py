"""SST-2 (GLUE): sentiment of sentences from film reviews, with this project's own shots and wording."""

from dataclasses import replace

from editlab.tasks import sentiment

TASK = replace(sentiment.TASK, name="sst2", title="SST-2", glue="sst2", note="wording and shots are editlab's own")
