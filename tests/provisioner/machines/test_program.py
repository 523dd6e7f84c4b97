"""When the system's ssh carries a machine's bytes, and what it is told. That it does is seen in test_reaching.py."""

from __future__ import annotations

import base64
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from remora_provisioner.machines.ssh.program import argv, usable
from remora_provisioner.machines.ssh.route import Hop

KEY = base64.b64encode(b"key").decode()


@pytest.fixture
def hop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hop:
    """Give a host that is known, with a key to show."""
    ssh = tmp_path / "ssh"
    ssh.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    known, identity = tmp_path / "known", tmp_path / "key"
    known.write_text(f"[box]:2222 ssh-ed25519 {KEY}\n")
    identity.touch()
    options = {"userknownhostsfile": str(known), "globalknownhostsfile": "none", "identityagent": "none"}
    return Hop("box", "box", 2222, "ada", options, (identity, tmp_path / "missing"))


def test_it_is_told_all_and_asks_nothing(hop: Hop) -> None:
    """No configuration is read, nobody is asked, no new host is accepted, nothing is written down; the command stands last."""
    assert usable([hop], lambda _: True)
    words = argv(hop, "echo $HOME")
    assert words[:3] == ["ssh", "-F", "none"]
    assert words[-2:] == ["box", "echo $HOME"]
    assert words[words.index("-l") : words.index("--")] == ["-l", "ada", "-p", "2222"]
    said = {word for option, word in itertools.pairwise(words) if option == "-o"}
    assert said >= {"BatchMode=yes", "StrictHostKeyChecking=yes", "UpdateHostKeys=no", "PreferredAuthentications=publickey"}
    assert said >= {f"UserKnownHostsFile={hop.known_files[0]}", "GlobalKnownHostsFile=none", "IdentityAgent=none"}
    assert [word for word in said if word.startswith("IdentityFile=")] == [f"IdentityFile={hop.identities[0]}"]
    assert said >= {"ConnectTimeout=20", "ServerAliveInterval=15", "ServerAliveCountMax=3"}


def test_pulses_are_whole_seconds(hop: Hop) -> None:
    """A pulse shorter than ssh can tell becomes a second."""
    words = argv(replace(hop, options={**hop.options, "serveraliveinterval": "0.3", "serveralivecountmax": "2"}), "true")
    assert {"ServerAliveInterval=1", "ServerAliveCountMax=1"} <= set(words)


@pytest.mark.parametrize(
    "other",
    [
        {"command": "nc box 22"},
        {"host": "-oProxyCommand=x y"},
        {"host": "elsewhere"},
        {"user": "ada lovelace"},
        {"identities": (Path("/tmp/%d"),)},
        {"port": 22},
        {"options": {"pubkeyauthentication": "no"}},
        {"options": {"identityagent": "/tmp/two words"}},
    ],
    ids=str,
)
def test_what_wants_a_question_is_left_alone(hop: Hop, other: dict[str, Any]) -> None:
    """A host that is not known under this name, a way over others, and words that ssh could misunderstand are not its."""
    options = {**hop.options, **other.pop("options", {})}
    assert not usable([replace(hop, options=options, **other)], lambda _: True)


def test_a_key_must_be_at_hand(hop: Hop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key to show, over a jump host, without the program, and if paramiko is wanted, ssh is not used."""
    assert not usable([hop], lambda _: False)
    assert not usable([hop, hop], lambda _: True)
    monkeypatch.setenv("REMORA_SSH", "paramiko")
    assert not usable([hop], lambda _: True)
    monkeypatch.delenv("REMORA_SSH")
    monkeypatch.setenv("PATH", "/nowhere")
    assert not usable([hop], lambda _: True)


def test_a_revoked_key_makes_nobody_known(hop: Hop) -> None:
    """A host of which only a revoked key is known is not known."""
    hop.known_files[0].write_text(f"@revoked [box]:2222 ssh-ed25519 {KEY}\n")
    assert not usable([hop], lambda _: True)
