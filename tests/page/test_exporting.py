"""The Export panel: every file is a link in the page, and what cannot be made is a sentence beside the others."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from editlab.core.errors import Unreachable
from editlab.core.records import SessionState
from editlab.page import files
from editlab.page.carrying import Carrier
from editlab.page.downloads import FOLDER
from editlab.page.exporting import Exporting
from editlab.page.panels.export import Export
from editlab.page.work import Runner
from tests.page.fake_lab import FakeLab
from tests.page.knowing import knowledge_of

NAMES = [
    "editlab-report.html",
    "editlab-references.bib",
    "editlab-figures.zip",
    "editlab-table.csv",
    "editlab-table.parquet",
    "editlab-table.json",
    "editlab-session.json",
    "editlab-session.ipynb",
    "editlab-replay.zip",
]


class Exported:
    """The panel Export of a session, without a page."""

    def __init__(self, lab: FakeLab, session: str, runner: Runner) -> None:
        self.knowledge, carrier = knowledge_of(lab, session), Carrier(runner)
        Exporting(lab, self.knowledge, carrier)
        self.panel = Export(self.knowledge, carrier)


def in_page(lab: FakeLab, session: str, act: Callable[[Exported, Runner], Awaitable[None]]) -> Exported:
    """The panel after a visitor's acts."""
    reports: list[str] = []

    async def scenario() -> Exported:
        runner = Runner(reports.append)
        exporting = Exported(lab, session, runner)
        await act(exporting, runner)
        await runner.idle()
        return exporting

    exporting = asyncio.run(scenario())
    assert not reports
    return exporting


def prepared(lab: FakeLab, meanwhile: Callable[[Exported], None] = lambda _: None) -> tuple[Exported, str]:
    """The panel once its button was pressed and all is done, of a session with two edits; and the session's key."""
    session = lab.create("My <b>session</b>")
    for fact in lab.facts[:2]:
        lab.edit(session, [fact]).result()
    lab.measure_due(session).result()

    async def act(exporting: Exported, _: Runner) -> None:
        exporting.panel.prepare.click()
        meanwhile(exporting)

    return in_page(lab, session, act), session


def shown(exporting: Exported) -> str:
    return "".join(link.value for link in exporting.panel.links.children)


def linked(exporting: Exported) -> dict[str, bytes]:
    links = re.findall(r'href="data:[^;]*;base64,([^"]+)" download="([^"]+)"', shown(exporting))
    return {name: base64.b64decode(payload) for payload, name in links}


def test_every_file_is_a_link_in_the_page() -> None:
    lab = FakeLab()
    exporting, session = prepared(lab)
    found = linked(exporting)
    assert [*found] == NAMES
    assert SessionState.from_json(json.loads(found["editlab-session.json"])) == lab.state(session)
    assert "<h1>My &lt;b&gt;session&lt;/b&gt;</h1>" in found["editlab-report.html"].decode()
    assert found["editlab-replay.zip"] == f"replay of {session}".encode()
    with zipfile.ZipFile(io.BytesIO(found["editlab-figures.zip"])) as archive:
        assert "drift.svg" in archive.namelist()
    assert exporting.panel.said == ""
    assert not exporting.panel.prepare.disabled


def test_while_files_are_prepared_the_button_waits() -> None:
    seen: list[tuple[bool, str]] = []

    async def look(exporting: Exported) -> None:
        while not linked(exporting).get("editlab-replay.zip"):
            seen.append((exporting.panel.prepare.disabled, exporting.panel.said))
            await asyncio.sleep(0)

    prepared(FakeLab(ahead=2), lambda exporting: asyncio.get_running_loop().create_task(look(exporting)))
    assert all(disabled for disabled, _ in seen)
    assert any("editlab-replay.zip: waiting for the model" in said for _, said in seen)


def test_what_fails_is_told_and_takes_nothing_else_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> bytes:
        raise OSError("no <i>space</i> left")

    monkeypatch.setattr(files, "table_of", broken)
    exporting, _ = prepared(FakeLab(failing="replay"))
    made = [
        "editlab-report.html",
        "editlab-references.bib",
        "editlab-figures.zip",
        "editlab-session.json",
        "editlab-session.ipynb",
    ]
    assert [*linked(exporting)] == made
    page = shown(exporting)
    assert page.count("It could not be made (OSError: no &lt;i&gt;space&lt;/i&gt; left).") == 3
    assert "The fake lab writes no replay file." in page
    assert "Preparing" not in exporting.panel.said
    assert not exporting.panel.prepare.disabled


def test_a_lab_that_is_away_is_told_and_nothing_stays_in_preparation() -> None:
    class Away(FakeLab):
        gone = False

        def state(self, session: str) -> SessionState:
            if self.gone:
                raise Unreachable("The backend does not answer.")
            return super().state(session)

    lab = Away()

    def leave(_: Exported) -> None:
        lab.gone = True

    exporting, _ = prepared(lab, leave)
    assert "The model does not answer." in exporting.panel.said
    assert not exporting.panel.prepare.disabled
    assert not linked(exporting)


def test_an_adapter_is_told_by_rank_size_and_error_before_it_is_made() -> None:
    lab = FakeLab()
    session = lab.create()
    for fact in lab.facts[:3]:
        lab.edit(session, [fact]).result()

    async def act(exporting: Exported, runner: Runner) -> None:
        panel = exporting.panel
        panel.look.click()
        await runner.idle()
        words = [words for words, _ in panel.rank.options]
        assert words == ["rank 3, 24 kB, exact", "rank 2, 16 kB, error 58 %", "rank 1, 8.0 kB, error 82 %"]
        assert panel.rank.label == words[0]
        assert "269 MB (bfloat16)" in panel.sizes.value
        assert "<code>editlab export editlab-replay.zip --to FOLDER</code>" in panel.sizes.value
        panel.rank.value = 2
        panel.adapter.click()
        await runner.idle()
        assert "With 3 edits in force" in panel.made.children[0].value
        assert base64.b64encode(f"adapter of {session}, 2".encode()).decode() in panel.made.children[1].value
        exporting.knowledge.change(
            state=await asyncio.to_thread(lab.undo, session)
        )  # sizes of other edits are not shown
        assert panel.sizes.value == ""
        lab.adapter_bytes = 20 * 10**6
        panel.look.click()
        await runner.idle()
        assert [value for _, value in panel.rank.options] == [1]
        assert "of rank 2, takes 40 MB" in panel.sizes.value
        assert "--as adapter --to FOLDER" in panel.sizes.value

    in_page(lab, session, act)


def test_what_is_being_made_can_be_cancelled() -> None:
    lab = FakeLab(ahead=1000)
    session = lab.create()

    async def act(exporting: Exported, runner: Runner) -> None:
        panel = exporting.panel
        for start in (panel.look, panel.adapter):
            start.click()
            while "waiting for the model" not in panel.said:
                await asyncio.sleep(0)
            panel.cancel.click()
            await runner.idle()
            assert panel.cancel.layout.display == "none"
            assert not start.disabled
        assert (panel.sizes.value, linked(exporting)) == ("", {})

    exporting = in_page(lab, session, act)
    assert "It was cancelled." in exporting.panel.made.children[1].value


def test_a_page_that_is_served_has_its_server_send_the_files_of_jobs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / f"{ended.pid}-left").mkdir()
    (tmp_path / f"{os.getppid()}-others").mkdir()
    monkeypatch.setenv(FOLDER, str(tmp_path))
    lab = FakeLab()
    lab.adapter_bytes = 10**9
    session = lab.create()
    lab.edit(session, lab.facts[:1]).result()

    def sent(markup: str, name: str) -> Path:
        (address,) = re.findall(f'href="downloads/([^"]+)" download="{name}"', markup)
        return tmp_path / address

    async def act(exporting: Exported, runner: Runner) -> None:
        panel = exporting.panel
        panel.prepare.click()
        await runner.idle()
        assert sent(shown(exporting), "editlab-replay.zip").read_bytes() == f"replay of {session}".encode()
        panel.look.click()
        await runner.idle()
        assert panel.rank.label == "rank 1, 1.0 GB, exact"
        places = []
        for _ in range(2):  # the second in the place of the first
            panel.adapter.click()
            await runner.idle()
            places.append(sent(panel.made.children[1].value, "editlab-adapter.zip"))
        assert places[1].read_bytes() == f"adapter of {session}, exact".encode()
        assert not places[0].exists()
        lab.most_bytes = 10**8
        exporting.knowledge.change(state=await asyncio.to_thread(lab.undo, session))
        exporting.knowledge.change(state=await asyncio.to_thread(lab.redo, session))
        panel.look.click()
        await runner.idle()
        assert "of rank 1, takes 1.0 GB: too much for this page" in panel.sizes.value
        monkeypatch.setenv(FOLDER, str(tmp_path / "gone"))
        panel.prepare.click()
        await runner.idle()
        assert "server could not keep editlab-replay.zip: No such file" in shown(exporting)

    in_page(lab, session, act)
    assert sorted(place.name.partition("-")[0] for place in tmp_path.iterdir()) == sorted(
        map(str, (os.getpid(), os.getpid(), os.getppid()))
    )
