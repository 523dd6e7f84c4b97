"""`gpu=` from a notebook to the node inside, with CDI specs of a made-up vendor over real device nodes.

As root the nodes are made for the tests, and nobody but root may open them; else they are some that everybody may open.
"""

from __future__ import annotations

import json
import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import fake_torch
import pytest
import remora
from journeys.calling import calling, warm_up
from journeys.driving import Notebook, Place, Ran
from remora.errors import Unavailable

from provisioner import needs

pytestmark = needs.namespaces
LOOK = """
import json, os
nodes = sorted(name for name in os.listdir('/dev') if name.startswith('acme'))
kinds = []
for name in nodes:
    with open(f'/dev/{name}', 'r+b', buffering=0) as node:
        number = os.fstat(node.fileno()).st_rdev
        kinds.append(os.minor(number))
print(json.dumps([nodes, kinds, os.environ.get('ACME_VISIBLE_DEVICES')]))
"""
MINORS = (5, 7)
"""Of /dev/zero and /dev/full, which anybody may open."""


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[Path]]:
    """Give two device nodes."""
    if os.geteuid() != 0:
        yield [Path("/dev/zero"), Path("/dev/full")]
        return
    folder = Path(f"/dev/remora-test-{os.getpid()}")
    folder.mkdir(mode=0o700)
    places = [folder / f"node{minor}" for minor in MINORS]
    for place, minor in zip(places, MINORS, strict=True):
        os.mknod(place, stat.S_IFCHR | 0o600, os.makedev(1, minor))
    try:
        yield places
    finally:
        for place in places:
            place.unlink()
        folder.rmdir()


@pytest.fixture(scope="module", autouse=True)
def _warm_up() -> None:
    """Start once what this process keeps."""
    warm_up()


@pytest.fixture
def place(nodes: list[Path], tmp_path: Path) -> Iterator[Place]:
    """Give a test a place on a machine with two devices of one made-up kind; its own process calls from there, too."""
    devices = [
        {
            "name": str(number),
            "containerEdits": {
                "deviceNodes": [{"path": f"/dev/acme{number}", "hostPath": str(node)}],
                "env": [f"ACME_VISIBLE_DEVICES={number}"],
            },
        }
        for number, node in enumerate(nodes)
    ]
    notes = {"acme.example/model": "Acme A9000", "acme.example/memory": "48GiB"}
    spec = {"cdiVersion": "0.6.0", "kind": "acme.example/gpu", "annotations": notes, "devices": devices}
    folder = tmp_path / "cdi"
    folder.mkdir()
    (folder / "acme.json").write_text(json.dumps(spec))
    (folder / "acme.json").chmod(0o644)
    with calling(REMORA_CDI_DIRS=str(folder)) as place:
        yield place


def seen(ran: Ran) -> list[object]:
    """Return what LOOK found."""
    assert ran.ok, ran.error
    return list(json.loads(ran.stdout))


def tensors_travel(notebook: Notebook) -> None:
    """Check that a tensor on the device comes home to the CPU, is worked on, and goes back to its device."""
    made = notebook.remote("import torch\nw = torch.Tensor([1, 2]).to('cuda')\nprint(w.device)", "session=one gpu=A9000")
    assert made.stdout == "cuda:0\n", made.error
    assert made.stderr == (
        "Remora: w: what was on cuda:0 there is on the CPU here, which has no such device, and goes back to its device\n"
    )
    assert notebook.run("w.data_[0] = 7\nprint(w.device, w.data_)").stdout == "cpu [7, 2]\n"
    back = notebook.remote("print(w.device, w.data_)", "session=one gpu=A9000")
    assert (back.stdout, back.stderr) == ("cuda:0 [7, 2]\n", "")


def test_devices_of_sessions(place: Place) -> None:
    """Each session sees its own device and no other, a third is told who holds what, and it all outlives the backend."""
    notebook = place.start()
    fake_torch.write(notebook.folder)
    first = notebook.remote(LOOK, "session=one gpu=A9000")
    assert seen(first) == [["acme0"], [MINORS[0]], "0"]
    assert seen(notebook.remote(LOOK, "session=two gpu=H100,any")) == [["acme1"], [MINORS[1]], "1"]
    assert seen(notebook.remote(LOOK, "session=none")) == [[], [], None]
    tensors_travel(notebook)
    os.kill(place.processes("remora_backend")[0], signal.SIGKILL)
    third = notebook.remote(LOOK, "session=three gpu=A9000")
    assert not third.ok
    holders = {row.split()[0]: row.split()[2] for row in notebook.run("%remote").result.splitlines()[1:]}
    assert f"Acme A9000 (48.0 GiB) by sandbox {holders['one']}" in third.error
    assert f"Acme A9000 (48.0 GiB) by sandbox {holders['two']}" in third.error
    assert "Acme A9000 (48.0 GiB)" in notebook.run("%remote").result
    assert seen(notebook.remote(LOOK, "session=one gpu=A9000")) == [["acme0"], [MINORS[0]], "0"]
    assert notebook.run("%remote stop one").ok
    assert seen(notebook.remote(LOOK, "session=three gpu=A9000")) == [["acme0"], [MINORS[0]], "0"]


@remora.function(gpu="A9000", cpu=0.5, idle="1h")
def device_of(number):
    """Return which devices there are."""
    return number, [name for name in os.listdir("/dev") if name.startswith("acme")]


@remora.function(gpu="any", cpu=0.5)
def another(number):
    """Return the same in a pool of its own."""
    return number, [name for name in os.listdir("/dev") if name.startswith("acme")]


@remora.function(gpu="H100!")
def out_of_reach():
    """Never run."""


def test_what_nobody_has(place: Place) -> None:
    """A GPU that nobody has: the answer lists what there is, and the line that adds a machine."""
    with pytest.raises(Unavailable) as raised:
        out_of_reach.remote()
    for said in (
        "no machine has gpu=H100!",
        "cores",
        "of memory",
        "Acme A9000 (48.0 GiB), free",
        "remora machine add NAME user@host",
    ):
        assert said in str(raised.value)


def test_calls_wait_for_devices(place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    """More calls than devices: each gets one, who waits hears why; a pool gives unused ones to another that waits."""
    found = list(device_of.map(range(4)))
    assert [number for number, _ in found] == list(range(4))
    assert {tuple(names) for _, names in found} <= {("acme0",), ("acme1",)}
    assert "gpu=A9000 is here, but held: Acme A9000 (48.0 GiB) by sandbox" in capfd.readouterr().err
    number, names = another.remote(7)
    assert (number, len(names)) == (7, 1)
