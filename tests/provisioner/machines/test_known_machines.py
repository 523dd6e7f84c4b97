"""The user's machines and SSH configuration: names, destinations, hosts that are known, and the way over jump hosts."""

from __future__ import annotations

import base64
import multiprocessing
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from remora.errors import InputError, OptionError, StateError, Unavailable
from remora_provisioner.machines.ssh import configuration, hostkeys, known
from remora_provisioner.machines.ssh.dialling import dial
from remora_provisioner.machines.ssh.hostkeys import Verdict
from remora_provisioner.machines.ssh.known import Machine, destination
from remora_provisioner.machines.ssh.reaching import Target
from remora_provisioner.machines.ssh.route import route


@pytest.fixture(autouse=True)
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the user a home and a state directory of their own; return ~/.ssh."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("REMORA_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(configuration, "_SYSTEM", tmp_path / "etc")
    folder = tmp_path / ".ssh"
    folder.mkdir()
    return folder


# ---- destinations -------------------------------------------------------------------------------------------------------


_WRITTEN = [
    ("gpubox", "gpubox", None, None),
    ("ada@gpu.example.org", "gpu.example.org", "ada", None),
    ("ada@10.0.0.7:2222", "10.0.0.7", "ada", 2222),
    ("10.0.0.7:22", "10.0.0.7", None, 22),
    ("ssh://ada@gpu.example.org:2222", "gpu.example.org", "ada", 2222),
    ("ssh://gpubox/", "gpubox", None, None),
    ("ada@[fd00::7]:2222", "fd00::7", "ada", 2222),
    ("[::1]", "::1", None, None),
    ("svc-1.x_y@a_b", "a_b", "svc-1.x_y", None),
]


def test_a_destination_is_read() -> None:
    """Each way to write a machine gives its host, user and port."""
    for text, host, user, port in _WRITTEN:
        assert destination(text) == Target(host, host, user, port)


_HOSTILE = [
    *("-oProxyCommand=x", "-l", "ada@-x", "-x@box", "ssh://-x", ".box", "..", "~"),
    *("", "ada@", "@box", "b@c@d", "ada:word@box", "ssh://", "ssh://a/b", "http://box", "box/", "box/x"),
    *("a b", " box", "box\n", "\nbox", "box\t", "b\0x", "bo\nx"),
    *(
        "box;id",
        "box$(id)",
        "box`id`",
        "a|b",
        "box'",
        'box"',
        "box&",
        "box>x",
        "$HOME",
        "%h",
        "*",
        "box?",
        "ada\\x@box",
        "!box",
        "#box",
    ),
    *("box:", "box:0", "box:65536", "box:-1", "box:1x", "box:123456", "box:22:22", "box: 22", "box:\u0662\u0662"),
    *("ada@[fd00::7", "ada@fd00::7", "[box]", "[::1%eth0]", "[::1]x", "[]"),
    *("b\u043ex", "b\xfcx", "ad\xe4@box"),
]


def test_what_could_mean_something_to_a_shell_is_no_destination() -> None:
    """Options, blanks, line ends, letters of shells and of other scripts, and what is only half an address are refused."""
    for text in _HOSTILE:
        with pytest.raises(OptionError) as caught:
            pytest.fail(f"{text!r} became {destination(text)}")
        assert "\n" not in str(caught.value)


# ---- the list -----------------------------------------------------------------------------------------------------------


def test_a_machine_is_added_found_and_forgotten(tmp_path: Path) -> None:
    """What was added is listed in this order and found as a target; it can be replaced, and is gone once removed."""
    key = tmp_path / "key"
    key.touch()
    known.add("gpubox", "ada@10.0.0.7:2222", identity=key)
    known.add("attic", "attic.example.org", rented=True)
    assert known.listed() == [
        Machine("gpubox", "10.0.0.7", "ada", 2222, str(key)),
        Machine("attic", "attic.example.org", rented=True),
    ]
    assert known.find("gpubox") == Target("gpubox", "10.0.0.7", "ada", 2222, str(key))
    known.add("gpubox", "ada@[fd00::7]")
    assert known.find("gpubox") == Target("gpubox", "fd00::7", "ada")
    known.remove("gpubox")
    assert known.find("gpubox") is None
    with pytest.raises(OptionError, match="attic"):
        known.remove("gpubox")


def test_the_list_is_the_users_alone(tmp_path: Path) -> None:
    """Nothing is there before a machine was added, and a damaged list is told, not overwritten."""
    assert known.listed() == []
    known.add("gpubox", "ada@10.0.0.7")
    file = tmp_path / "state" / "machines.json"
    for damage in (
        "{",
        "[]",
        '{"machines": {"x": 1}}',
        '{"machines": {"x": {"host": "-oProxyCommand=x"}}}',
        '{"machines": {"-x": {"host": "a"}}}',
    ):
        file.write_text(damage)
        with pytest.raises(InputError, match="damaged"):
            known.add("attic", "attic")
        assert file.read_text() == damage


def test_a_list_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """Where there is no room for the list, the error names its file."""
    (tmp_path / "state").write_text("in the way")
    with pytest.raises((StateError, InputError), match=r"machines\.json"):
        known.add("gpubox", "ada@10.0.0.7")


def _add_some(number: int) -> None:
    for each in range(5):
        known.add(f"m{number}-{each}", "ada@10.0.0.7")


def test_machines_that_are_added_at_once_are_all_kept() -> None:
    """Four processes that add five machines each leave twenty."""
    with multiprocessing.get_context("fork").Pool(4) as pool:
        pool.map(_add_some, range(4))
    assert len(known.listed()) == 20


def test_a_name_that_is_none_is_refused() -> None:
    """Names are of letters, digits, dots, _ and -; others are neither added nor found."""
    for name in ("", "here", "-x", "a b", "a/b", "a;b", "..", "a\n", "x" * 64, "ada@box"):
        with pytest.raises(OptionError):
            known.add(name, "ada@10.0.0.7")
        assert known.find(name) is None


def test_a_key_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """A machine is not added with a key file that does not exist."""
    with pytest.raises(InputError, match="ssh-keygen"):
        known.add("gpubox", "ada@10.0.0.7", identity=tmp_path / "none")


# ---- the SSH configuration ----------------------------------------------------------------------------------------------


def test_a_host_of_the_ssh_configuration_is_a_machine(ssh: Path) -> None:
    """Each Host without a wildcard is found, in included files too; what was added goes before; near names are offered."""
    (ssh / "config").write_text(
        'Include more/*\nHost gpubox *.lab\n  User ada\nHost="attic"\nMatch host x\nHost !no y?s\n#Host out\n'
    )
    (ssh / "more").mkdir()
    (ssh / "more" / "a").write_text("host inner  second\n")
    assert configuration.hosts() == ["inner", "second", "gpubox", "attic"]
    assert known.find("inner") == Target("inner")
    assert [known.find(name) for name in ("*.lab", "no", "out", "x", "a.lab")] == [None] * 5
    known.add("gpubox", "ada@10.0.0.7")
    assert known.find("gpubox") == Target("gpubox", "10.0.0.7", "ada")
    assert known.names() == ["gpubox", "inner", "second", "attic"]
    assert known.get("attic") == Target("attic")
    with pytest.raises(OptionError, match="did you mean gpubox"):
        known.get("gpubx")
    with pytest.raises(OptionError, match="remora machine add"):
        known.get("-oProxyCommand=x")


def test_a_section_goes_on_after_an_include(ssh: Path) -> None:
    """What follows an Include belongs to the section that the Include stands in."""
    (ssh / "config").write_text("Host a\n  Include inner\n  User ada\n")
    (ssh / "inner").write_text("  Port 7\nHost b\n  Port 8\n")
    lines = [line.strip() for line in configuration.read().splitlines()]
    assert lines[:7] == ["Host a", "Port 7", "Host b", "Port 8", "Host a", "User ada", "Host *"]


def test_files_that_include_themselves_are_told(ssh: Path) -> None:
    """A circle of Include lines ends in an error that names the file."""
    (ssh / "config").write_text("Include config\n")
    with pytest.raises(InputError, match="includes itself"):
        configuration.hosts()


def _lookup(**sections: Mapping[str, Any]) -> Any:
    return lambda name: {"hostname": name, **sections.get(name, {})}


def test_the_way_leads_over_all_jump_hosts() -> None:
    """A chain is taken in its order; the first host's own jump host comes before it, and options count for each."""
    lookup = _lookup(
        box={"proxyjump": "ada@one:7, two", "user": "eva", "hostname": "10.0.0.9"},
        one={"proxyjump": "gate", "hostname": "10.0.0.1"},
        two={"proxyjump": "elsewhere", "port": "8", "proxycommand": "x"},
    )
    hops = route(lookup, Target("box"))
    assert [(hop.name, hop.host, hop.port) for hop in hops] == [
        ("gate", "gate", 22),
        ("one", "10.0.0.1", 7),
        ("two", "two", 8),
        ("box", "10.0.0.9", 22),
    ]
    assert [hop.user for hop in hops][1::2] == ["ada", "eva"]
    assert hops[2].command is None


def test_a_section_for_all_may_name_the_jump_host() -> None:
    """A host is not jumped to over itself, and `none` means no jump host."""
    everywhere = {"proxyjump": "gate"}
    assert [hop.name for hop in route(_lookup(box=everywhere, gate=everywhere), Target("box"))] == ["gate", "box"]
    assert len(route(_lookup(box={"proxyjump": "none"}), Target("box"))) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"proxyjump": "two"}, "leads over"),
        ({"proxyjump": "-oX=y"}, "ProxyJump"),
        ({"port": "x"}, "Port"),
        ({"port": "0"}, "Port"),
    ],
)
def test_a_way_that_leads_nowhere_is_told(options: Mapping[str, Any], words: str) -> None:
    """Jump hosts in a circle, and values that are none, are errors that say where they stand."""
    with pytest.raises(InputError, match=words):
        route(_lookup(box=options, two={"proxyjump": "box"}), Target("box"))


def test_a_target_holds_nothing_for_a_shell() -> None:
    """Whatever a target was made from, neither its name nor host nor user can be taken for something else."""
    for text in ("-oProxyCommand=x", "a b", "", "a;b", "a\n"):
        for values in ({"name": text}, {"name": "a", "host": text}, {"name": "a", "user": text}):
            with pytest.raises(OptionError):
                Target(**values)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (socket.gaierror(socket.EAI_NONAME, "not known"), "no-such-host"),
        (socket.gaierror(socket.EAI_AGAIN, "later"), "unreachable"),
        (TimeoutError(), "unreachable"),
        (OSError(113, "No route to host"), "unreachable"),
    ],
)
def test_only_a_name_that_is_none_is_no_such_host(monkeypatch: pytest.MonkeyPatch, error: OSError, reason: str) -> None:
    """A laptop without a network has not lost its machine: only the answer that a name does not exist says so."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(socket, "create_connection", fail)
    with pytest.raises(Unavailable, match="box") as caught:
        dial(route(_lookup(), Target("box"))[0])
    assert caught.value.reason == reason


def test_options_have_their_meaning() -> None:
    """Files, times and names of the configuration become what ssh makes of them."""
    options = {
        "userknownhostsfile": "~/a %d/b/%h",
        "globalknownhostsfile": "none",
        "hostkeyalias": "Alias",
        "connecttimeout": "3",
        "serveraliveinterval": "4",
        "serveralivecountmax": "2",
        "stricthostkeychecking": "off",
        "identityfile": ["~/.ssh/one", "none"],
    }
    (hop,) = route(_lookup(box=options), Target("box", identity="/k"))
    assert hop.known_files == [Path.home() / "a", Path.home() / "b" / "box"]
    assert (hop.kept_in, hop.known_as, hop.asks, hop.patience, hop.pulse) == (
        Path.home() / "a",
        "alias",
        "accept-new",
        3.0,
        (4.0, 8.0),
    )
    assert hop.identities == (Path("/k"), Path.home() / ".ssh" / "one")
    with pytest.raises(InputError, match="connecttimeout"):
        _ = route(_lookup(box={"connecttimeout": "x"}), Target("box"))[0].patience


# ---- hosts that are known -----------------------------------------------------------------------------------------------

_KEY, _OTHER = (base64.b64encode(text).decode() for text in (b"one key", b"another"))


def _judged(file: Path, name: str = "box", key: bytes = b"one key") -> tuple[Verdict, int]:
    verdict, line = hostkeys.judge(hostkeys.lookup([file], name), key)
    return verdict, line.line if line else 0


def test_lines_of_known_hosts_are_read_as_ssh_reads_them(ssh: Path) -> None:
    """Patterns, ports, negation, markers, comments and damage: each line counts as it does for ssh, and none is stumbled over."""
    file = ssh / "known_hosts"
    file.write_text(
        f"# box ssh-rsa {_OTHER}\n\nBOX,10.0.0.7 ssh-ed25519 {_KEY} comment\n*.lab,!evil.lab ssh-rsa {_KEY}\n"
        f"[box]:2222 ssh-rsa {_OTHER}\n@cert-authority * ssh-rsa {_OTHER}\n@strange * ssh-rsa {_OTHER}\n"
        f"short\nbox ssh-rsa %%%\n|1|xx|yy ssh-rsa {_OTHER}\n|1| ssh-rsa {_OTHER}\n"
    )
    with file.open("ab") as more:
        more.write(b"\xff\xfe b\0x\n")
    assert _judged(file) == (Verdict.KNOWN, 3)
    assert _judged(file, "a.lab") == (Verdict.KNOWN, 4)
    assert _judged(file, "evil.lab") == (Verdict.UNKNOWN, 0)
    assert _judged(file, "[box]:2222") == (Verdict.CHANGED, 5)
    assert _judged(file, "[box]:2223") == (Verdict.UNKNOWN, 0)
    assert _judged(ssh / "none") == (Verdict.UNKNOWN, 0)


def test_a_revoked_key_stays_revoked(ssh: Path) -> None:
    """A key that is revoked anywhere is revoked, and a line that revokes another key makes no host known."""
    file = ssh / "known_hosts"
    file.write_text(f"box ssh-rsa {_KEY}\n@revoked * ssh-rsa {_KEY}\n")
    assert _judged(file) == (Verdict.REVOKED, 2)
    file.write_text(f"@revoked * ssh-rsa {_OTHER}\n")
    assert _judged(file) == (Verdict.UNKNOWN, 0)


@pytest.mark.parametrize("hashed", [False, True])
def test_a_host_that_is_remembered_is_known_to_ssh(ssh: Path, hashed: bool) -> None:
    """A new line goes behind a last line without an end, changes none, and ssh-keygen finds it."""
    file = ssh / "deep" / "known_hosts"
    hostkeys.remember(file, "[box]:2222", "ssh-ed25519", b"one key", hashed=hashed)
    file.write_text(file.read_text() + f"other ssh-rsa {_OTHER}")
    hostkeys.remember(file, "box", "ssh-ed25519", b"one key", hashed=hashed)
    assert [_judged(file, name)[0] for name in ("box", "[box]:2222", "other")] == [Verdict.KNOWN, Verdict.KNOWN, Verdict.CHANGED]
    assert ("box" in file.read_text()) is not hashed
    assert file.stat().st_mode & 0o777 == 0o600
    key = ssh / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    kind, half = key.with_suffix(".pub").read_text().split()[:2]
    hostkeys.remember(file, "[third]:7", kind, base64.b64decode(half), hashed=hashed)
    found = subprocess.run(["ssh-keygen", "-F", "[third]:7", "-f", file], check=False, capture_output=True)
    assert found.returncode == 0


def test_known_hosts_that_cannot_be_read_are_told(ssh: Path) -> None:
    """A file of known hosts that is there but cannot be read is an error, for else a changed key would look new."""
    (ssh / "known_hosts").mkdir()
    with pytest.raises(InputError, match="known_hosts"):
        hostkeys.lookup([ssh / "known_hosts"], "box")
