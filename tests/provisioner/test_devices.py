"""GPUs: what specs and the driver say of them, which one does for a `gpu=`, who holds which, and what a sandbox sees of them."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from remora.errors import OptionError, Unavailable
from remora.resources import Resources, parse_gpu
from remora.states import EndReason
from remora.wire import SandboxId
from remora_provisioner import jails, view
from remora_provisioner.agent import Agent
from remora_provisioner.devices import cdi, nvml, specs
from remora_provisioner.devices.choosing import choose
from remora_provisioner.devices.finding import Found, read, together
from remora_provisioner.devices.grants import HELD, Devices
from remora_provisioner.devices.kinds import Device, Node, environment_of, mounts_of
from remora_provisioner.images.fitting import Fitting
from remora_provisioner.opening import Opening
from remora_provisioner.order import Order
from remora_provisioner.sandbox import Mount
from remora_provisioner.testing import JailContract, make_plan

from provisioner import needs, sandboxes

GIB = 2**30


def spec(*devices: Any, **more: Any) -> dict[str, Any]:
    """Return a spec of a made-up vendor with these devices, by default two of one kind."""
    known = devices or (entry("0", "/dev/zero"), entry("1", "/dev/full"))
    notes = {"acme.example/model": "Acme A9000", "acme.example/memory": "48GiB"}
    return {"cdiVersion": "0.6.0", "kind": "acme.example/gpu", "annotations": notes, "devices": list(known)} | more


def entry(name: str, *hosts: str, **edits: Any) -> dict[str, Any]:
    """Return a device of a spec, whose nodes are those of the machine under other names."""
    nodes = [{"path": f"/dev/acme-{Path(host).name}", "hostPath": host} for host in hosts]
    return {"name": name, "containerEdits": {"deviceNodes": nodes} | edits}


def found(value: Any, mounts: bool = True) -> tuple[tuple[Device, ...], str]:
    """Return what a spec gives, its lines as one text."""
    devices, lines = cdi.devices_of(value, mounts)
    return devices, "\n".join(lines)


# -- one spec


def test_what_a_spec_says() -> None:
    """Names, memory, nodes, mounts and variables of a device, with what the spec says for all."""
    common = {"deviceNodes": [{"path": "/dev/random0", "hostPath": "/dev/random", "permissions": "r"}], "env": ["ACME=1"]}
    shown = {
        "mounts": [{"hostPath": "/etc/hosts", "containerPath": "/opt/acme/hosts", "options": ["ro"]}],
        "env": ["ACME_ID=a=b"],
    }
    devices, lines = found(spec(entry("0", "/dev/zero", **shown), containerEdits=common))
    (device,) = devices
    assert device == Device(
        id="acme.example/gpu=0",
        nodes=(Node("/dev/zero", "/dev/acme-zero"),),
        model="Acme A9000",
        memory=48 * GIB,
        told_by="annotations",
        common=(Node("/dev/random", "/dev/random0", writable=False),),
        mounts=(("/etc/hosts", "/opt/acme/hosts"),),
        environment=(("ACME", "1"), ("ACME_ID", "a=b")),
    )
    assert lines == ""
    assert mounts_of([device], elsewhere=True) == (
        ("/dev/zero", "/dev/acme-zero", True),
        ("/dev/random", "/dev/random0", False),
        ("/etc/hosts", "/opt/acme/hosts", False),
    )
    assert mounts_of([device], elsewhere=False) == (("/dev/zero", "/dev/zero", True), ("/dev/random", "/dev/random", False))


def test_one_device_counts_once() -> None:
    """A second name of a device and the name for all of them are no further devices."""
    zero, full = "/dev/zero", "/dev/full"
    two = [entry("0", zero), entry("1", full)]
    for names in ([*two, entry("all", zero, full)], [entry("all", full, zero), *two], [*two, entry("GPU-12ab", zero)]):
        assert [device.id for device in found(spec(*names))[0]] == ["acme.example/gpu=0", "acme.example/gpu=1"]
    assert [device.id for device in found(spec(entry("all", zero), entry("0", zero)))[0]] == ["acme.example/gpu=0"]


def test_what_is_no_gpu_is_left_alone() -> None:
    """A spec of network cards gives nothing, and nothing is said of it."""
    assert found(spec(kind="acme.example/net")) == ((), "")


@pytest.mark.parametrize("version", ["0.3.0", "0.5.0", "0.8.0", "1.0.0", "1.1.0"])
def test_versions_that_are_known(version: str) -> None:
    """Specs of versions 0.3 to 1.x are read."""
    assert len(found(spec(cdiVersion=version))[0]) == 2


HOSTILE = {
    "no spec": ([], "no table"),
    "an old version": (spec(cdiVersion="0.2.0"), "version 0.2.0"),
    "a newer version": (spec(cdiVersion="2.0.0"), "version 2.0.0"),
    "no kind": ({"devices": []}, "kind is no text"),
    "a name with a line break": (spec(entry("0\n", "/dev/zero")), "name is no text"),
    "a name that is a path": (spec(entry("../0", "/dev/zero")), "its name is none"),
    "devices in a table": (spec(devices={}), "devices is no list"),
    "very many devices": (spec(*[entry("0", "/dev/zero")] * 300), "more than 256"),
    "a file for a node": (spec(entry("0", "/etc/passwd")), "not below /dev"),
    "a way out of /dev": (spec(entry("0", "/dev/../etc/passwd")), "no plain absolute path"),
    "a node that is not there": (spec(entry("0", "/dev/acme-none")), "is not there"),
    "a folder for a node": (spec(entry("0", "/dev/pts")), "no character device"),
    "a node in the place of one that everybody needs": (
        spec({"name": "0", "containerEdits": {"deviceNodes": [{"path": "/dev/null", "hostPath": "/dev/zero"}]}}),
        "cannot be shown as /dev/null",
    ),
    "a node shown outside of /dev": (
        spec({"name": "0", "containerEdits": {"deviceNodes": [{"path": "/usr/bin/sh", "hostPath": "/dev/zero"}]}}),
        "cannot be shown as /usr/bin/sh",
    ),
    "no node": (spec(entry("0")), "no device node of its own"),
    "a common node that is none": (spec(containerEdits={"deviceNodes": [{"path": "/etc/passwd"}]}), "cannot be shown"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_specs(case: str) -> None:
    """What a spec may not say gives no device, and a line."""
    value, line = HOSTILE[case]
    devices, lines = found(value)
    assert devices == ()
    assert line in lines


def test_what_is_passed_over_and_said() -> None:
    """Hooks, unknown parts, variables of ours, bad memory and files that are not there leave the device as it is."""
    edits = {
        "hooks": [{"hookName": "createContainer", "path": "/usr/bin/acme-hook"}],
        "netDevices": [{"hostInterfaceName": "eth0"}],
        "env": ["PATH=/tmp", "REMORA_UPLINK_FD=7", "no equals", "GOOD=1"],
        "mounts": [{"hostPath": "/nowhere", "containerPath": "/x"}],
    }
    (device,), lines = found(spec(entry("0", "/dev/zero", **edits), annotations={"memory": "lots"}))
    assert (device.memory, device.mounts, device.environment) == (None, (), (("GOOD", "1"),))
    for said in ("acme-hook", "netDevices", "'PATH'", "'REMORA_UPLINK_FD'", "'no equals'", "/nowhere", "'lots'"):
        assert said in lines


def test_files_are_shown_only_for_root() -> None:
    """Of a spec that root does not own, no files are shown."""
    shown = {"mounts": [{"hostPath": "/etc/shadow", "containerPath": "/tmp/shadow"}]}
    (device,), lines = found(spec(entry("0", "/dev/zero", **shown)), mounts=False)
    assert device.mounts == ()
    assert "only a spec that root owns may show files" in lines


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


@st.composite
def bent_specs(draw: Any) -> Any:
    """Make a good spec and put anything at any place of it."""
    whole: Any = json.loads(json.dumps(spec(containerEdits=entry("x", "/dev/random", env=["A=b"], hooks=[{}])["containerEdits"])))
    for _ in range(draw(st.integers(1, 3))):
        at = whole
        while True:
            keys = list(at) if isinstance(at, dict) else list(range(len(at)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if not isinstance(at[key], dict | list) or draw(st.booleans()):
                at[key] = draw(JSON)
                break
            at = at[key]
    return whole


@settings(max_examples=100)
@given(JSON | bent_specs())
def test_no_spec_breaks_the_reader(value: Any) -> None:
    """Whatever is in a spec, reading it ends, and every device it gives has nodes, all of them below /dev."""
    devices, lines = cdi.devices_of(value, True, lambda path: path)
    assert all(line.isprintable() for line in lines)
    for device in devices:
        assert device.nodes
        assert all(node.host.startswith("/dev/") and node.inside.startswith("/dev/") for node in (*device.nodes, *device.common))


@settings(max_examples=200)
@given(st.binary(max_size=200) | st.text(alphabet="[]{}:-&*!|>'\"\n \t%@#a0.", max_size=60).map(str.encode), st.booleans())
def test_no_text_breaks_the_reader(data: bytes, yaml: bool) -> None:
    """Whatever bytes a file has, they are values or a ValueError."""
    try:
        specs.parse(data, yaml)
    except ValueError as error:
        assert str(error)


@settings(max_examples=30)
@given(bent_specs())
def test_json_is_read_as_it_was_written(value: Any) -> None:
    """A spec in JSON means the same, with the ending of YAML too."""
    text = json.dumps(value).encode()
    assert json.dumps(specs.parse(text, yaml=False)) == json.dumps(specs.parse(text, yaml=True)) == text.decode()


NVIDIA_YAML = """\
---
cdiVersion: 0.5.0
containerEdits:
  deviceNodes:
  - path: /dev/nvidiactl
    hostPath: /dev/random
  env:
  - NVIDIA_VISIBLE_DEVICES=void
  hooks:
  - args:
    - nvidia-cdi-hook
    - update-ldcache
    hookName: createContainer
    path: /usr/bin/nvidia-cdi-hook
devices:
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
      hostPath: /dev/zero
  name: "0"
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
      hostPath: /dev/zero
  name: all
kind: nvidia.com/gpu
"""


def test_yaml() -> None:
    """YAML as `nvidia-ctk` writes it is read; values stay text; anchors are refused."""
    (device,), lines = found(specs.parse(NVIDIA_YAML.encode(), yaml=True))
    assert (device.id, device.environment) == ("nvidia.com/gpu=0", (("NVIDIA_VISIBLE_DEVICES", "void"),))
    assert lines == "the hook '/usr/bin/nvidia-cdi-hook' is not run"
    assert specs.parse(b"a: 1\nb: 2020-01-01", yaml=True) == {"a": "1", "b": "2020-01-01"}
    with pytest.raises(ValueError, match="anchors"):
        specs.parse(b"a: &a [x]\nb: [*a, *a]", yaml=True)


@pytest.mark.parametrize("text", [b"[" * 100_000, b"{" * 100_000, b"- " * 20_000, b'{"a":' * 50_000])
def test_deep_nesting(text: bytes) -> None:
    """Nesting without end is refused like anything else that is not understood."""
    for yaml in (False, True):
        with pytest.raises(ValueError, match=r"nested|no JSON|no plain YAML"):
            specs.parse(text, yaml)


# -- files and folders


def write(path: Path, value: Any, mode: int = 0o644) -> Path:
    """Write a spec."""
    path.write_text(json.dumps(value))
    path.chmod(mode)
    return path


def test_specs_that_cannot_be_trusted(tmp_path: Path) -> None:
    """A file that others may write, a FIFO, a dangling link, noise and a file beyond all measure give lines; the rest is read."""
    write(tmp_path / "good.json", spec(entry("0", "/dev/zero")))
    write(tmp_path / "shared.json", spec(entry("1", "/dev/full")), mode=0o666)
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "dangling.json").symlink_to("nowhere")
    (tmp_path / "noise.yaml").write_bytes(b"\xff\xfe\x00 : [")
    with (tmp_path / "huge.json").open("wb") as huge:
        huge.truncate(1 << 40)
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "README").write_text("no spec")
    told = read([str(tmp_path), str(tmp_path / "none")])
    assert [device.id for device in told.devices] == ["acme.example/gpu=0"]
    said = {line.split(": ")[0].rpartition("/")[2]: line for line in told.lines}
    assert sorted(said) == ["dangling.json", "folder.json", "huge.json", "noise.yaml", "pipe.json", "shared.json"]
    assert "chmod go-w" in said["shared.json"]
    assert "bytes" in said["huge.json"]


@needs.root
def test_a_spec_of_somebody_else(tmp_path: Path) -> None:
    """A spec that belongs to another user is not used by root, for which it could name any node."""
    os.chown(write(tmp_path / "theirs.json", spec()), 12345, 12345)
    told = read([str(tmp_path)])
    assert told.devices == ()
    assert "belongs to somebody else" in told.lines[0]


def test_the_later_folder_counts(tmp_path: Path) -> None:
    """Of two specs for one device, by name or by node, that of the later folder counts; a changed file is read again."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    write(tmp_path / "a" / "x.json", spec(entry("0", "/dev/zero"), entry("1", "/dev/full")))
    write(tmp_path / "b" / "x.json", spec(entry("zero", "/dev/zero"), entry("1", "/dev/random")))
    folders = [str(tmp_path / "a"), str(tmp_path / "b")]
    assert [device.id for device in read(folders).devices] == ["acme.example/gpu=zero", "acme.example/gpu=1"]
    (tmp_path / "b" / "x.json").write_text("{}")
    assert [device.id for device in read(folders).devices] == ["acme.example/gpu=0", "acme.example/gpu=1"]


# -- the driver


class Driver:
    """NVML as its documentation says that it answers, for GPUs (name, UUID, minor number, memory); an int is an error."""

    def __init__(self, *gpus: tuple[str, str, int, int] | int, init: int = 0) -> None:
        """Have these GPUs; `init` is how the library begins."""
        self._gpus, self._init = gpus, lambda: init

    def __getattr__(self, name: str) -> Any:
        """Return the function of this name."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self, "_" + name.removeprefix("nvml").removesuffix("_v2").lower())

    def _devicegetcount(self, count: Any) -> int:
        count._obj.value = len(self._gpus)
        return 0

    def _devicegethandlebyindex(self, index: Any, handle: Any) -> int:
        handle._obj.value = index.value + 1
        return 0

    def _gpu(self, handle: ctypes.c_void_p) -> Any:
        return self._gpus[(handle.value or 0) - 1]

    def _devicegetname(self, handle: Any, name: Any, _: Any) -> int:
        gpu = self._gpu(handle)
        if isinstance(gpu, int):
            return gpu
        name.value = gpu[0].encode()
        return 0

    def _devicegetuuid(self, handle: Any, uuid: Any, _: Any) -> int:
        uuid.value = self._gpu(handle)[1].encode()
        return 0

    def _devicegetminornumber(self, handle: Any, minor: Any) -> int:
        minor._obj.value = self._gpu(handle)[2]
        return 0

    def _devicegetmemoryinfo(self, handle: Any, memory: Any) -> int:
        memory._obj.total = self._gpu(handle)[3]
        return 0


A100, L4 = ("NVIDIA A100-SXM4-80GB", "GPU-aa", 0, 85_899_345_920), ("NVIDIA L4", "GPU-bb", 1, 24_152_899_584)


def test_what_the_driver_knows() -> None:
    """Name, memory, UUID and nodes; what it cannot tell, or has no node, is said."""
    devices, lines = nvml.find(Driver(A100, 15, L4, ("NVIDIA T4", "GPU-cc", 7, 16)), lambda path: path != "/dev/nvidia7")
    assert [(device.model, device.memory, device.own) for device in devices] == [
        (A100[0], A100[3], {"/dev/nvidia0"}),
        (L4[0], L4[3], {"/dev/nvidia1"}),
    ]
    assert [node.host for node in devices[0].common] == list(nvml._COMMON)
    assert environment_of(devices) == {"CUDA_VISIBLE_DEVICES": "GPU-aa,GPU-bb", "NVIDIA_VISIBLE_DEVICES": "GPU-aa,GPU-bb"}
    assert "GPU 1" in lines[0]
    assert "/dev/nvidia7" in lines[1]


def test_no_driver() -> None:
    """Without the library there is nothing to say; one that does not start is said."""
    assert nvml.find(None) == ((), ())
    assert "error 9" in nvml.find(Driver(init=9))[1][0]


def test_specs_and_driver_together() -> None:
    """A device that both know is one: nodes and variables of the spec, name and memory of the driver."""
    driver = Found(*nvml.find(Driver(A100, L4), lambda path: True))
    node = Node("/dev/nvidia0", "/dev/nvidia0")
    card = Node("/dev/dri/card1", "/dev/dri/card1")
    told = Device("nvidia.com/gpu=0", (node, card), environment=(("NVIDIA_VISIBLE_DEVICES", "void"),))
    first, second = together(Found((told,)), driver).devices
    assert (first.id, first.model, first.memory, first.nodes) == ("nvidia.com/gpu=0", A100[0], A100[3], (node, card))
    assert dict(first.environment) == {"NVIDIA_VISIBLE_DEVICES": "void", "CUDA_VISIBLE_DEVICES": "GPU-aa"}
    assert second.id == "nvidia.com/gpu=GPU-bb"


def test_slices_of_one_gpu() -> None:
    """Slices have the model's name but not its memory, the whole is no device beside them, and one is granted at a time."""
    driver = Found(*nvml.find(Driver(A100), lambda path: True))
    whole = Node("/dev/nvidia0", "/dev/nvidia0")
    slices = [Device(f"nvidia.com/gpu=0:{n}", (whole, Node(f"/dev/nvidia-caps/{n}", f"/dev/nvidia-caps/{n}"))) for n in (0, 1)]
    told = together(Found(tuple(slices)), driver)
    assert [(device.model, device.memory) for device in told.devices] == [(A100[0], None)] * 2
    devices = Devices(lambda: told)
    with devices.granted(SandboxId("s1"), parse_gpu("A100")), pytest.raises(Unavailable):
        devices.granted(SandboxId("s2"), parse_gpu("A100")).__enter__()


# -- which one will do


def device(model: str, memory: float | None = None, number: int = 0) -> Device:
    """Return a device of that name, with so many GiB."""
    node = f"/dev/{model}-{number}"
    size = int(memory * GIB) if memory else None
    return Device(f"acme.example/gpu={model}-{number}", (Node(node, node),), model, size)


SXM80, SXM40, PLAIN40 = device("NVIDIA A100-SXM4-80GB", 79.3), device("NVIDIA A100-SXM4-40GB", 39.5), device("NVIDIA A100", 39.5)
H100, H200 = device("NVIDIA H100 80GB HBM3", 79.6), device("NVIDIA H200", 140.4)
A1000, RTX4090 = device("NVIDIA RTX A1000", 8.0), device("NVIDIA GeForce RTX 4090", 24.0)

CHOICES = [
    ("A100", [SXM80], [SXM80]),
    ("a100", [SXM80], [SXM80]),
    ("A100", [A1000], None),
    ("A10", [SXM80], None),
    ("A1000", [SXM80, A1000], [A1000]),
    ("RTX4090", [A1000, RTX4090], [RTX4090]),
    ("RTX-4090", [RTX4090], [RTX4090]),
    ("A100", [SXM80, SXM40], [SXM40]),
    ("A100-80GB", [SXM40, SXM80], [SXM80]),
    ("A100-40GB", [SXM80, SXM40], [SXM40]),
    ("A100-40GB", [PLAIN40], [PLAIN40]),
    ("A100-80GB", [PLAIN40], None),
    ("H200-141GB", [H200], [H200]),
    ("A100-40GB", [SXM80], [SXM80]),
    ("A100-40GB!", [SXM80], None),
    ("H100", [H200], [H200]),
    ("H100", [H200, H100], [H100]),
    ("H100!", [H200], None),
    ("H200", [H100], None),
    ("L4,A100", [SXM80], [SXM80]),
    ("H100,A100", [SXM80, H100], [H100]),
    ("any", [RTX4090, SXM80], [RTX4090]),
    ("any", [], None),
    ("any:2", [RTX4090, SXM80, device("NVIDIA A100-SXM4-80GB", 79.3, 1)], [SXM80, device("NVIDIA A100-SXM4-80GB", 79.3, 1)]),
    ("any:2", [RTX4090, SXM80], [RTX4090, SXM80]),
    ("A100:2", [SXM80], None),
    ("A100:2,any", [SXM80], [SXM80]),
]


@pytest.mark.parametrize(("text", "there", "chosen"), CHOICES, ids=[f"{n}-{row[0]}" for n, row in enumerate(CHOICES)])
def test_choices(text: str, there: list[Device], chosen: list[Device] | None) -> None:
    """Names are words, memory tells models apart, and only what the table says stands in for something else."""
    assert choose(parse_gpu(text), there) == (None if chosen is None else tuple(chosen))


# -- who holds which


@pytest.fixture
def devices() -> Devices:
    """Give the account of a machine with two devices of one model and one of another."""
    return Devices(lambda: Found((device("Acme A9000", 48, 0), device("Acme A9000", 48, 1), device("Acme B1", 8))))


def grant(devices: Devices, sandbox: str, text: str) -> list[str]:
    """Grant a sandbox what it wants, and return the devices' names."""
    with devices.granted(SandboxId(sandbox), parse_gpu(text)):
        return [one.id.partition("=")[2] for one in devices.of(SandboxId(sandbox))]


def test_grants(devices: Devices) -> None:
    """No device is granted twice; who is left out is told what is held by whom; what is released can be granted again."""
    assert grant(devices, "s1", "A9000") == ["Acme A9000-0"]
    assert grant(devices, "s2", "A9000,any") == ["Acme A9000-1"]
    with pytest.raises(Unavailable) as raised:
        grant(devices, "s3", "A9000")
    assert raised.value.reason == HELD
    for said in ("Acme A9000 (48.0 GiB) by sandbox s1", "by sandbox s2", "`remora stop s1`"):
        assert said in str(raised.value)
    assert grant(devices, "s3", "A9000,any") == ["Acme B1-0"]
    assert [facts["held_by"] for facts in devices.known()] == ["s1", "s2", "s3"]
    devices.release(SandboxId("s1"))
    devices.release(SandboxId("s1"))
    assert devices.held_up(parse_gpu("A9000")) is None
    assert grant(devices, "s4", "A9000") == ["Acme A9000-0"]


def test_what_can_never_be_had(devices: Devices) -> None:
    """More than there is can never be had, and nobody is said to hold it."""
    assert devices.has(())
    assert devices.has(parse_gpu("A9000:2"))
    assert not devices.has(parse_gpu("A9000:3"))
    assert not devices.has(parse_gpu("H100"))
    assert devices.held_up(parse_gpu("H100")) is None
    with pytest.raises(Unavailable, match="any more"):
        grant(devices, "s1", "H100")


def test_failed_opening(devices: Devices) -> None:
    """A sandbox that could not be opened holds nothing."""
    with pytest.raises(KeyError), devices.granted(SandboxId("s1"), parse_gpu("A9000")):
        raise KeyError
    assert {facts["held_by"] for facts in devices.known()} == {None}


def test_taking_up(devices: Devices) -> None:
    """What a sandbox held before the agent was away is held, also when the device has another name by now."""
    grant(devices, "s1", "A9000")
    kept = devices.facts(SandboxId("s1"))
    later = Devices(
        lambda: Found(tuple(Device(f"new{n}", one.nodes, "Acme A9000") for n, one in enumerate(devices._look().devices)))
    )
    later.take_up(SandboxId("s1"), json.loads(json.dumps(kept)))
    assert [facts["held_by"] for facts in later.known()] == ["s1", None, None]


# -- inside


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[Path]]:
    """Give three device nodes: as root nodes of its own, that nobody else may open; else some that everybody may."""
    if os.geteuid() != 0:
        yield [Path("/dev/zero"), Path("/dev/full"), Path("/dev/random")]
        return
    folder = Path(f"/dev/remora-test-{os.getpid()}")
    folder.mkdir(mode=0o700)
    places = [folder / f"acme{number}" for number in range(3)]
    for place, minor in zip(places, (5, 7, 8), strict=True):
        os.mknod(place, stat.S_IFCHR | 0o600, os.makedev(1, minor))
    try:
        yield places
    finally:
        for place in places:
            place.unlink()
        folder.rmdir()


_TRY = """
import errno
def tried(path, flags, what):
    try:
        with open(os.open(path, flags), "r+b" if flags else "rb", buffering=0) as node:
            return what(node)
    except OSError as error:
        return errno.errorcode[error.errno]
zero, full, other = sys.argv[2:]
try:
    listed = sorted(os.listdir("/dev"))
except OSError:
    listed = None
say([tried(zero, 0, lambda node: node.read(2).hex()), tried(full, os.O_RDWR, lambda node: node.write(b"x")),
     tried(other, 0, lambda node: "opened"), listed])
"""
_USUAL = {
    *("console", "core", "fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom"),
    "zero",
}


def see(jail: str, place: Path, other: Path, *mounts: Mount) -> list[Any]:
    """Return what code in a sandbox of this jail with these nodes finds: a read, a write, another node, and all names."""
    way = type("Way", (JailContract,), {"jail_name": jail})()
    seen = (*make_plan(place, "").mounts, *mounts)
    with way.visit(place, _TRY, *(str(mount.target) for mount in mounts), str(other), mounts=seen) as visit:
        return list(visit.hear())


@needs.namespaces
def test_nodes_in_bubblewrap(tmp_path: Path, nodes: list[Path]) -> None:
    """A sandbox has the nodes it is given, can use them whoever owns them on the machine, and has no others."""
    given = [Mount(nodes[0], Path("/dev/acme/zero")), Mount(nodes[1], Path("/dev/full1"), writable=True)]
    other = next(
        path for path in (nodes[2], *sorted(Path("/dev").iterdir())) if path.name not in _USUAL and path.is_char_device()
    )
    read, wrote, opened, listed = see("bubblewrap", tmp_path, other, *given)
    assert (read, wrote, opened) == ("0000", "ENOSPC", "ENOENT")
    assert set(listed) - _USUAL == {"acme", "full1"}


@needs.root
@needs.landlock
def test_nodes_under_landlock(tmp_path: Path, nodes: list[Path]) -> None:
    """Nodes of others can be seen there and not be opened."""
    given = [Mount(nodes[0], nodes[0]), Mount(nodes[1], nodes[1], writable=True)]
    assert see("landlock", tmp_path, nodes[2], *given)[:3] == ["0000", "ENOSPC", "EACCES"]


@needs.namespaces
def test_files_of_a_driver_over_layers(tmp_path: Path) -> None:
    """A file that a spec shows lies over an image's layers, in a folder that they do not have, and cannot be written."""
    layer, driver = tmp_path / "layer", tmp_path / "driver.so"
    (layer / "opt" / "image").mkdir(parents=True)
    driver.write_text("driver")
    code = """
target = "/opt/acme/lib/driver.so"
try:
    open(target, "a")
except OSError as error:
    say([open(target).read(), error.strerror, sorted(os.listdir("/opt"))])
"""
    way = type("Way", (JailContract,), {"jail_name": "bubblewrap"})()
    seen = (*make_plan(tmp_path, "").mounts, Mount(driver, Path("/opt/acme/lib/driver.so")))
    with way.visit(tmp_path, code, mounts=seen, layers=(layer,)) as visit:
        text, refused, listed = visit.hear()
    assert (text, refused) == ("driver", "Read-only file system")
    assert {"acme", "image"} <= set(listed)


def test_what_is_shown_beside_the_system(tmp_path: Path) -> None:
    """Of a driver's files below /usr only what differs is laid over others; in a system of its own all of it is shown."""
    (tmp_path / "driver.so").touch()
    driver = str(tmp_path / "driver.so")
    wanted = (
        ("/dev/zero", "/dev/acme0", True),
        ("/usr/bin/env", "/usr/bin/env", False),
        (driver, "/usr/bin/env", False),
        (driver, "/usr/lib/acme-none/driver.so", False),
        (driver, "/run/acme/driver.so", False),
    )
    fitting = Fitting(sys.executable, "3.11", ())
    assert view.device_mounts(wanted, fitting) == (wanted[0], wanted[2], wanted[4])
    assert view.device_mounts(wanted, replace(fitting, whole=True)) == wanted


def test_an_agent_without_a_jail_that_hides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can be hidden a line says so; a second sandbox gets nothing; what ended or failed holds nothing."""
    monkeypatch.setenv("REMORA_LIMITS", "watching")
    node = Node("/dev/zero", "/dev/acme0")
    there = Found((Device("acme.example/gpu=0", (node,), "Acme A9000", environment=(("ACME_VISIBLE_DEVICES", "0"),)),))
    spec = sandboxes.a_spec(tmp_path, resources=Resources(parse_gpu("A9000")))

    async def scenario() -> None:
        listener = sandboxes.Listener()
        agent = Agent(tmp_path / "state", (), listener)
        agent.devices = Devices(lambda: there)
        agent._chosen = {None: (jails.named("process"), [])}
        with pytest.raises(OptionError):
            await agent.open(SandboxId("s0"), replace(spec, image=spec.image | {"base": {"kind": "nothing"}}), {}, Opening())
        (line,) = await agent.open(SandboxId("s1"), spec, {}, Opening())
        assert "jail process hides no devices" in line
        order = Order.load(tmp_path / "state" / "sandboxes" / "s1")
        assert ("/dev/zero", "/dev/zero", True) in order.mounts
        assert order.environment["ACME_VISIBLE_DEVICES"] == "0"
        with pytest.raises(Unavailable, match="by sandbox s1"):
            await agent.open(SandboxId("s2"), spec, {}, Opening())
        await listener.until(lambda: listener.sandboxes[SandboxId("s1")][0] == "ready")
        assert listener.sandboxes[SandboxId("s1")][1]["devices"][0]["model"] == "Acme A9000"
        again = Agent(tmp_path / "state", (), listener)
        again.devices = Devices(lambda: there)
        await again.take_up()
        assert [facts["held_by"] for facts in again.devices.known()] == ["s1"]
        await agent.stop(SandboxId("s1"), EndReason.STOPPED)
        await listener.until(lambda: not again.has("s1"))
        assert [facts["held_by"] for facts in (*agent.devices.known(), *again.devices.known())] == [None, None]

    asyncio.run(scenario())
