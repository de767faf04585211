"""A comparison: several methods and orders over the same facts, each a run in a folder of its own.

The runs are made here one after another, or side by side on a cluster (`editlab.experiments.cluster`).
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
    """One model, and everything else that the runs of a configuration need."""

    def __init__(
        self, config: RunConfig, facts: Sequence[Fact], model: ModelChoice, report: OnProgress = quiet
    ) -> None:
        """`facts`: those to choose from. Raises ValueError for a bad configuration, before any run."""
        self.config = config
        self._measures = standard(load_tasks(config.glue, config.tasks), config.text)
        loaded = model.load(report)
        self._editor = Editor(loaded, moments=config.moments, seed=config.seed)
        for method in config.methods:
            self._editor.method(method, config.hyperparameters.get(method))
        self._facts = facts

    def run(self, name: str, disk: RunFolder, report: OnProgress = quiet) -> None:
        """Make or resume one of `config.runs()`. All runs share the results on the unedited model."""
        config, model = self.config, self._editor.model
        method, order = config.runs()[name]

        def wanted() -> Sequenced:
            changed, guard = config.hyperparameters.get(method, {}), Guard(config.guard, config.guard_level)
            chosen = tuple(config.choose(model, self._facts, order))
            return Sequenced(chosen, method, changed, config.seed, model.fingerprint(), guard)

        session = Session(self._editor, self._measures, watches_facts=False)
        run_sequence(session, wanted, config.schedule, disk, report)
