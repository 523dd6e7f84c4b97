"""The vault: encrypted, only the user's, whole at every moment, and plain words for whatever is wrong with it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from remora import giving
from remora.errors import InputError, OptionError, StateError
from remora.images import Image
from remora.jupyter.options import parse
from remora.options import build
from remora.resources import SandboxSpec
from remora.specs import spec
from remora.vault import Vault

VALUE = "hunter2-and-more"


@pytest.fixture
def vault(tmp_path):
    """Give an empty vault."""
    return Vault(tmp_path / "state" / "secrets", tmp_path / "config" / "secrets.key")


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Give the vault that this process would use."""
    monkeypatch.setenv("REMORA_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("REMORA_KEY_FILE", str(tmp_path / "config" / "secrets.key"))
    monkeypatch.delenv("REMORA_SANDBOX", raising=False)
    return Vault(tmp_path / "state" / "secrets", tmp_path / "config" / "secrets.key")


def test_set_and_forget(vault, tmp_path):
    """What was set is there again; a second set adds; names are listed without values; nothing lies there in the clear."""
    assert vault.names() == {}
    vault.set("hf", {"HF_TOKEN": VALUE})
    vault.set("hf", {"OTHER": "a\n'b' \"c\" ü"})
    vault.set("more", {"A": "1"})
    assert vault.get("hf") == {"HF_TOKEN": VALUE, "OTHER": "a\n'b' \"c\" ü"}
    assert vault.names() == {"hf": ["HF_TOKEN", "OTHER"], "more": ["A"]}
    for file in (f for f in tmp_path.rglob("*") if f.is_file()):
        assert file.stat().st_mode & 0o777 == 0o600, file
        assert not any(text in file.read_bytes() for text in (VALUE.encode(), b"HF_TOKEN"))
    vault.remove("hf", ["OTHER"])
    assert vault.names()["hf"] == ["HF_TOKEN"]
    vault.remove("hf", ["HF_TOKEN"])
    vault.remove("more")
    assert vault.names() == {}
    assert {f.name for f in tmp_path.rglob("*") if f.is_file()} == {"secrets", "secrets.lock", "secrets.key"}


@pytest.mark.parametrize("name", ["", "none", "a b", "a/b", "../x", "ü", "A=hunter2", "x" * 101, "a.b"])
def test_names_of_secrets(vault, name):
    """A name that is none is refused without what stands behind a =."""
    with pytest.raises(OptionError, match="no name of a secret") as refused:
        vault.set(name, {"A": VALUE})
    assert "hunter2" not in str(refused.value)


def test_an_unknown_secret(vault):
    """The error lists what there is, and the line that sets one."""
    with pytest.raises(OptionError, match=r"no secret 'x'; there is none yet.*remora secret set x"):
        vault.get("x")
    vault.set("b", {"A": VALUE})
    vault.set("a", {"A": VALUE})
    with pytest.raises(OptionError, match="there are a, b"):
        vault.remove("x")
    with pytest.raises(OptionError, match="no variable 'Z'; it has A"):
        vault.remove("a", ["Z"])
    with pytest.raises(InputError, match="would have no variable"):
        vault.set("c", {})


def test_damage(vault, tmp_path):
    """A file that is none of ours, another key, no key, no right to read: each says so, and nothing is written over."""
    file, key = tmp_path / "state" / "secrets", tmp_path / "config" / "secrets.key"
    vault.set("a", {"A": VALUE})
    good, good_key = file.read_bytes(), key.read_bytes()
    for damaged, its_key, words in [
        (b"something else", good_key, "one of them is damaged"),
        (b"", good_key, "one of them is damaged"),
        (good[:-9], good_key, "one of them is damaged"),
        (good, good_key[::-1], "one of them is damaged"),
        (good, b"short", "one of them is damaged"),
    ]:
        file.write_bytes(damaged)
        key.write_bytes(its_key)
        for work in (vault.names, lambda: vault.set("b", {"B": "2"}), lambda: vault.get("a")):
            with pytest.raises(InputError, match=words):
                work()
        assert (file.read_bytes(), key.read_bytes()) == (damaged, its_key)
    file.write_bytes(good)
    key.unlink()
    with pytest.raises(InputError, match="is missing, without which"):
        vault.set("b", {"B": "2"})
    key.write_bytes(good_key)
    key.chmod(0o644)
    with pytest.raises(InputError, match=f"chmod 600 {key}"):
        vault.get("a")
    key.chmod(0o600)
    assert vault.get("a") == {"A": VALUE}


def test_no_room(tmp_path):
    """Where nothing can be written, the error says which file, and that nothing was changed."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="nothing was changed"):
        Vault(tmp_path / "file" / "secrets", tmp_path / "key").set("a", {"A": VALUE})


def test_sets_at_once_lose_nothing(mine):
    """Many processes that set secrets in one moment all find theirs."""
    code = "import sys; from remora.vault import vault; [vault().set(f's{sys.argv[1]}-{n}', {'A': '1'}) for n in range(5)]"
    started = [subprocess.Popen([sys.executable, "-c", code, str(number)]) for number in range(4)]
    assert [process.wait() for process in started] == [0] * 4
    assert len(mine.names()) == 20


def test_what_a_request_carries(mine, tmp_path, monkeypatch):
    """Secrets and files in the order they are named; the registry's by itself; a spec has names and paths, no values."""
    mine.set("a", {"A": VALUE, "B": "of a"})
    mine.set("reg", {"REGISTRY_USERNAME": "me", "REGISTRY_PASSWORD": VALUE})
    (tmp_path / "x.env").write_text("B=of the file\n")
    monkeypatch.chdir(tmp_path)
    image = Image.from_registry("localhost:1/x", secret="reg")
    made = spec(build({"secret": ["a", "x.env"]}), image.to_spec())
    assert made.secrets == ("a", str(tmp_path / "x.env"))
    assert giving.for_spec(made) == {
        "environment": {"A": VALUE, "B": "of the file"},
        "registry": {"REGISTRY_USERNAME": "me", "REGISTRY_PASSWORD": VALUE},
    }
    assert VALUE not in repr(made) + str(made.to_dict()) and SandboxSpec.from_dict(made.to_dict()) == made
    assert giving.for_spec(spec(build({}), Image.mirror().to_spec())) == {"environment": {}}


def test_files_that_cannot_be_read(mine, tmp_path):
    """One that is not there, a folder, no text, nothing in it."""
    (tmp_path / "bytes.env").write_bytes(b"A=\xff")
    (tmp_path / "empty.env").write_text("# nothing\n")
    wrong = {"none.env": "No such file", "": "Is a directory", "bytes.env": "no text in UTF-8", "empty.env": "has no variable"}
    for name, words in wrong.items():
        with pytest.raises(InputError, match=words):
            giving.variables([f"{tmp_path}/{name}"])


def test_code_in_a_sandbox_has_none(mine, monkeypatch):
    """There it says so, whatever lies there."""
    mine.set("a", {"A": VALUE})
    monkeypatch.setenv("REMORA_SANDBOX", "s1")
    with pytest.raises(OptionError, match="code in a sandbox has no secrets"):
        giving.variables(["a"])


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("hf", ("hf",)),
        ("none", ()),
        (None, ()),
        ("hf, wandb,hf", ("hf", "wandb")),
        (["hf", "./a b.env"], ("hf", "./a b.env")),
        (".env", (".env",)),
        ("prod.env,~/x", ("prod.env", "~/x")),
    ],
)
def test_the_option(value, found):
    """Names and paths, one or several; the line that it comes to is read as the same again."""
    chosen = build({"secret": value})
    assert chosen.secrets == found and chosen.lasting().secrets == found
    assert parse(str(chosen), str) == chosen and build({}).over(chosen).secrets == found
    assert VALUE not in str(chosen)


@pytest.mark.parametrize("value", ["", "a b", "TOKEN=hunter2", ",", "a.b", ["x,y.env"]])
def test_the_option_refuses(value):
    """What is neither a name nor a path; nothing behind a = is shown."""
    with pytest.raises(OptionError) as refused:
        build({"secret": value})
    assert "hunter2" not in str(refused.value)


def test_nothing_is_loaded_before_it_is_used():
    """A process without secrets does not load what encrypts them."""
    code = "import sys, remora, remora.options, remora.cli, remora.giving; sys.exit('cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=dict(os.environ), check=False).returncode == 0
