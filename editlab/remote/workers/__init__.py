"""Several workers, each with a model, behind one lab: the pool passes calls on and replaces workers that die."""

from editlab.remote.workers.pool import WorkerPool as WorkerPool
