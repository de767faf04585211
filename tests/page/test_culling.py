"""A page that nobody looks at ends, and comes back where it was. Driven over the web socket, as a browser does it."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from benchmarks.visitor import Visitor
from editlab.page import voila_server
from editlab.serving.ports import free_port
from tests import serving as backend
from tests.page.conftest import SERVE_PAGE, Served, running
from tests.page.fake_lab import FakeLab

pytestmark = pytest.mark.slow
PATIENCE_SECONDS = 60.0
QUICK = (
    "import editlab.page.voila_server as served; served.CULL_AFTER_SECONDS = 2; served.CULL_EVERY_SECONDS = 1\n"
    + SERVE_PAGE
)


async def ended(served: Served) -> None:
    """Until the server has no kernel left."""
    end = time.monotonic() + PATIENCE_SECONDS
    while served.kernels():
        assert time.monotonic() < end
        await asyncio.sleep(0.1)


def test_a_page_left_without_a_word_ends_and_is_found_again_where_it_was() -> None:
    lab = FakeLab()

    async def scenario(served: Served) -> None:
        visitor = Visitor(served.address)
        async with visitor:
            said = await visitor.edit("The {} is located in the city of", "Prado", "Oslo")
            assert "Edit 1 is in force" in said
            key = visitor.key
            await asyncio.sleep(4)  # longer than a page that nobody looks at is kept
            assert len(served.kernels()) == 1
            await visitor.leave()
            await ended(served)
        async with Visitor(served.address, key) as again:
            assert again.key == key
            assert again.shows(1)
        await ended(served)  # at once: this tab was closed

    options = json.dumps({"page": {"port": free_port()}, "notebook": None})
    with backend.serving(lab) as url, running(["-c", QUICK, options], {"EDITLAB_BACKEND": url}) as served:
        asyncio.run(scenario(served))


def test_a_kernel_that_nobody_is_connected_to_is_kept_for_ten_minutes_at_most() -> None:
    from editlab.serving.settings import PageSettings

    config = voila_server.configuration(PageSettings())
    assert 0 < config.MappingKernelManager.cull_idle_timeout <= 600
    assert config.MappingKernelManager.cull_connected is False
