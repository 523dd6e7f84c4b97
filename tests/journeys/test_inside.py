"""Code inside a sandbox that asks the backend: it gets what it started itself, and nothing that sees more than it does.

Law: the code speaks to the backend as the SDK does, by the uplink, and asks for whatever it likes.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from journeys.driving import Notebook, Place

_ASK = """
import dataclasses, json, os
from remora import places
from remora.client import client
from remora.errors import RemoraError
from remora.options import CellOptions
from remora.wire import *
def asked(request):
    try:
        return client().run(client().request(request)).result
    except RemoraError as error:
        return {{"refused": error.reason, "text": str(error)}}
spec = places.spec(CellOptions())
print(json.dumps({code}))
"""


def inside(notebook: Notebook, code: str) -> dict[str, object]:
    """Return what an expression gives in the sandbox; `asked(request)` asks the backend."""
    ran = notebook.remote(_ASK.format(code=code), "--no-sync")
    assert ran.ok, ran.error
    answer: dict[str, object] = json.loads(ran.stdout.splitlines()[-1])
    return answer


@pytest.mark.parametrize(
    "change",
    [
        "folder={secret!r}",
        "folder='/root' if os.getuid() == 0 else '/home', home='/nowhere'",
        "home='/nowhere'",
        "image=spec.image | {{'base': spec.image['base'] | {{'prefix': {secret!r}}}}}",
        "image=spec.image | {{'base': spec.image['base'] | {{'roots': [{secret!r}]}}}}",
        "image=spec.image | {{'guest': {secret!r} + '/a/b/c.py'}}",
        "secrets=('mine',)",
        "on='box', machines=('box',)",
    ],
)
@pytest.mark.parametrize("request_", ["OpenSession('k', 'main', {spec})", "SubmitCall('r1', 'f', {spec}, {{}})"])
def test_nothing_is_opened_that_sees_more(place: Place, notebook: Notebook, change: str, request_: str) -> None:
    """Another folder or home, a folder in the image's name, a secret or machine of the user's is refused; nothing is started."""
    secret = place.root / "secret"
    (secret / "a").mkdir(parents=True, exist_ok=True)
    spec = f"dataclasses.replace(spec, {change.format(secret=str(secret)) if '{' in change else change}).to_dict()"
    answer = inside(notebook, f"asked({request_.format(spec=spec)})")
    assert answer["refused"] == "refused" and "in this sandbox" in str(answer["text"])


def test_a_link_in_the_folder_leads_nowhere(place: Place, notebook: Notebook) -> None:
    """A folder in the notebook's that is a link to elsewhere is not handed on, nor is any other part of what can be written."""
    (place.root / "elsewhere").mkdir(exist_ok=True)
    (notebook.folder / "link").symlink_to(place.root / "elsewhere")
    (notebook.folder / "part").mkdir()
    for name in ("link", "part"):
        folder = f"dataclasses.replace(spec, folder=os.path.join(spec.folder, {name!r})).to_dict()"
        assert inside(notebook, f"asked(OpenSession('k', 'main', {folder}))")["refused"] == "refused"


def test_others_are_neither_seen_nor_ended(place: Place, notebook: Notebook) -> None:
    """Sandboxes and runs of the user are not listed, found, followed, cancelled, adopted or stopped from in there."""
    other = place.start()
    try:
        assert other.remote("mark = 1").ok
        run = other.run("%remote runs").result.splitlines()[1].split()[0]
        sandbox = other.run("%remote").result.splitlines()[1].split()[2]
        listed = inside(notebook, "asked(ListAll())")
        assert listed["sandboxes"] == [] and sandbox not in json.dumps(listed) and run not in json.dumps(listed)
        for request in (
            f"FindRun({run!r})",
            f"FollowRun({run!r})",
            f"CancelRun({run!r})",
            f"FindSandbox({sandbox!r})",
            f"StopSandboxes([{sandbox!r}])",
            f"StopSandboxes([{sandbox[:4]!r}])",
            "StopSandboxes([], True)",
            f"OpenSession('k', 'main', spec.to_dict(), {sandbox!r})",
            f"OpenSession('k', 'main', spec.to_dict(), None, {sandbox!r})",
        ):
            assert "refused" in inside(notebook, f"asked({request})"), request
        assert other.remote("mark").result == "1"
    finally:
        place.end(other)


def test_a_call_id_is_no_path(place: Place, notebook: Notebook) -> None:
    """An id that would lead out of the folder of runs is refused, and nothing is written there."""
    outside = place.root / "written"
    for name in (str(outside), "../../written"):
        answer = inside(notebook, f"asked(SubmitCall({name!r}, 'f', spec.to_dict(), {{}}))")
        assert answer["refused"] == "no-such-run"
    assert not outside.exists() and not Path(place.state / "written").exists()


def test_what_it_opens_itself_is_its_own(notebook: Notebook) -> None:
    """A remote function called in a sandbox works as ever, and its run is found."""
    code = """
import remora
@remora.function(idle="1s")
def f(x): return x + 1
run = f.spawn(1)
run.get(timeout=60), remora.Run.from_id(run.id).id == run.id
"""
    assert notebook.remote(code, "--no-sync").result == "(2, True)"
