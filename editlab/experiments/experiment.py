"""A comparison: several methods and orders over the same facts, each a run in a folder of its own.

The runs are made here one after another, or side by side on a cluster (`editlab.experiments.spread`).
"""

from __future__ import annotations

from collections.abc import Sequence

from editlab.core.facts import Fact
from editlab.core.progress import OnProgress, quiet
from editlab.editing.editor import Editor
from editlab.editing.guard import Guard
from editlab.editing.texts import check_source
from editlab.experiments.config import RunConfig, measures_at
from editlab.experiments.run import RunFolder, Sequenced, run_sequence
from editlab.measures import standard
from editlab.measures.tasks import load_tasks
from editlab.model.loading import ModelChoice
from editlab.session.session import Session


class Experiment:
    """One model, and everything else that the runs of a configuration need."""

    def __init__(
        self, config: RunConfig, facts: Sequence[Fact], model: ModelChoice, report: OnProgress = quiet
    ) -> None:
        """`facts`: the facts to choose from. Raises ValueError for a bad configuration, before any run."""
        self.config = config
        self._measures = standard(load_tasks(config.glue, config.tasks), config.text)
        measures_at(config.schedule, self._measures, 0)
        check_source(config.moments)
        names = config.names
        loaded = model.load(report)
        self._editor = Editor(loaded, moments=config.moments, n_keys=config.keys, seed=config.seed)
        for method in names:
            self._editor.method(method, config.hyperparameters.get(method))
        self._facts = facts
        self._chosen: dict[int, list[Fact]] = {}  # by order

    def check(self, name: str, disk: RunFolder, report: OnProgress = quiet) -> None:
        """Raises ValueError if the folder holds another run than this one of `config.runs()`."""
        disk.check(self._wanted(self._session(name, disk), name, report))

    def run(self, name: str, disk: RunFolder, report: OnProgress = quiet) -> None:
        """Make or resume one of `config.runs()`. All runs share the measurements of the unedited model."""
        session = self._session(name, disk)
        run_sequence(session, self._wanted(session, name, report), self.config.schedule, disk, report)

    def _session(self, name: str, disk: RunFolder) -> Session:
        """A session for a run, with the second moments that the run in the folder was begun with."""
        editor, there = self._editor, disk.definition()
        if there is not None:
            method, _ = self.config.runs()[name]
            layers = editor.method(method, self.config.hyperparameters.get(method)).edited_layers
            editor = editor.resuming(layers, there.moments)
        return Session(editor, self._measures, watches_facts=False)

    def _wanted(self, session: Session, name: str, report: OnProgress) -> Sequenced:
        config = self.config
        method, order = config.runs()[name]
        if order not in self._chosen:
            self._chosen[order] = config.choose(session.model, self._facts, order)
        guard = Guard(config.guard, config.guard_level)
        changes = config.hyperparameters.get(method, {})
        return Sequenced.of(
            session, self._chosen[order], method, changes, config.schedule, guard, report, config.batch_size
        )
