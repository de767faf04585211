"""The kernel of a visit: IPython's own, which keeps every message until it is read. Run as a module."""

from __future__ import annotations

import zmq
from ipykernel.kernelapp import IPKernelApp

NO_LIMIT = 0  # as ZeroMQ has it


class KernelApp(IPKernelApp):
    """Publishes without a limit.

    ZeroMQ drops messages beyond the first thousand that nobody has read. A page takes some two thousand, and the last
    one arranges all others; a busy server may read them too late.
    """

    def init_iopub(self, context: zmq.Context) -> None:
        context.setsockopt(zmq.SNDHWM, NO_LIMIT)
        super().init_iopub(context)


if __name__ == "__main__":
    KernelApp.launch_instance()
