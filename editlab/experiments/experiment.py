"""A comparison: several methods and orders over the same facts, each a run in a folder of its own.

Knows nothing of where the runs are made: here one after another, on a cluster (`editlab.experiments.cluster`) side
by side.
"""

from __future__ import annotations

from collections.abc import Sequence

from editlab.core.facts import Fact
from editlab.core.progress import OnProgress, quiet
from editlab.editing.editor import Editor
from editlab.editing.guard import Guard
from editlab.experiments.run import RunConfig, RunFolder, Sequenced, run_sequence
from editlab.measures import standard
from editlab.measures.tasks import load_tasks
from editlab.model.loading import ModelChoice
from editlab.session.session import Session


class Experiment:
    """One model with all that the runs of a configuration need beside it."""

    def __init__(
        self, config: RunConfig, facts: Sequence[Fact], model: ModelChoice, report: OnProgress = quiet
    ) -> None:
        """`facts`: what the configuration chooses from. Raises ValueError for what is wrong in it, before any run."""
        self.config = config
        self._measures = standard(load_tasks(config.glue, config.tasks), config.text)
        loaded = model.load(report)
        self._editor = Editor(loaded, moments=config.moments, seed=config.seed)
        for method in config.methods:
            self._editor.method(method, config.hyperparameters.get(method))
        self._facts = facts

    def run(self, name: str, disk: RunFolder, report: OnProgress = quiet) -> None:
        """Make one of `config.runs()`, or go on with it. What is known of the unedited model is shared by all."""
        config, model = self.config, self._editor.model
        method, order = config.runs()[name]

        def wanted() -> Sequenced:
            changed, guard = config.hyperparameters.get(method, {}), Guard(config.guard, config.guard_level)
            chosen = tuple(config.choose(model, self._facts, order))
            return Sequenced(chosen, method, changed, config.seed, model.fingerprint(), guard)

        session = Session(self._editor, self._measures, watches_facts=False)
        run_sequence(session, wanted, config.schedule, disk, report)
