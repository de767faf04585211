"""MRPC (GLUE): whether two sentences from the news mean the same, with this project's own shots and wording."""

from dataclasses import replace

from editlab.tasks import paraphrase

TASK = replace(paraphrase.TASK, name="mrpc", title="MRPC", glue="mrpc", note="wording and shots are editlab's own")
