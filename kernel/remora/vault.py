"""The user's secrets on this machine: names with variables, encrypted in one file, the key in another one.

Law: whoever reads finds the file as it was before a change or after it, and two changes at once are one after the other. No error
shows a value. What the encryption keeps off, and what not, is said in docs/how-to/secrets.md.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from . import dotenv
from .errors import InputError, OptionError, StateError
from .settings import SANDBOX, key_file, state_directory

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}", re.ASCII)
_MINE = 0o600
Secrets = dict[str, dict[str, str]]


def vault() -> Vault:
    """Return the vault of this user."""
    return Vault(state_directory() / "secrets", key_file())


def check_name(name: str) -> str:
    """Return the name of a secret; OptionError if it is none."""
    if not NAME.fullmatch(name) or name.lower() == "none":
        shown = name.partition("=")[0][:40]
        raise OptionError(f"secret={shown!r} is no name of a secret; use letters, digits, _ and -, such as hf or wandb-team")
    return name


class Vault:
    """Secrets by name."""

    def __init__(self, file: Path, key: Path) -> None:
        """Keep them in `file`, encrypted with what is in `key`; both are made when the first one is set."""
        self._file, self._key = file, key

    def names(self) -> dict[str, list[str]]:
        """Return the names of all secrets, and of their variables."""
        return {name: sorted(variables) for name, variables in sorted(self._read().items())}

    def get(self, name: str) -> dict[str, str]:
        """Return the variables of a secret; OptionError if there is none of this name."""
        if SANDBOX.text:
            raise OptionError(f"secret={name}: code in a sandbox has no secrets to give; hand values on as arguments or by env=")
        return self._found(self._read(), check_name(name))

    def set(self, name: str, variables: Mapping[str, str]) -> None:
        """Add a secret, or variables to it; those that it has already get the new values."""
        check_name(name)
        if not variables:
            raise InputError(f"the secret {name} would have no variable; write it like remora secret set {name} NAME=value")
        dotenv.check(variables, f"the secret {name}")
        with self._locked():
            known = self._read()
            self._write(known | {name: known.get(name, {}) | dict(variables)})

    def remove(self, name: str, variables: Iterable[str] = ()) -> None:
        """Forget a secret, or only these variables of it; OptionError if there is none."""
        with self._locked():
            known = self._read()
            left = dict(self._found(known, name))
            for variable in variables:
                if left.pop(variable, None) is None:
                    raise OptionError(f"the secret {name} has no variable {variable[:40]!r}; it has {', '.join(sorted(left))}")
            del known[name]
            self._write(known | ({name: left} if left and variables else {}))

    def _found(self, known: Secrets, name: str) -> dict[str, str]:
        if name not in known:
            there = f"there are {', '.join(sorted(known))}" if known else "there is none yet"
            raise OptionError(f"there is no secret {name!r}; {there}. Set it in a terminal: remora secret set {name}")
        return known[name]

    # -- on the disk

    def _read(self) -> Secrets:
        token = self._bytes(self._file)
        if token is None:
            return {}
        from cryptography.fernet import Fernet, InvalidToken

        advice = f"put back what belongs together, or remove {self._file} and set the secrets again"
        key = self._bytes(self._key)
        if key is None:
            raise InputError(f"the key {self._key} is missing, without which {self._file} cannot be read; {advice}")
        try:
            found: Secrets = json.loads(Fernet(key.strip()).decrypt(token))["secrets"]
        except (InvalidToken, ValueError, KeyError, TypeError):
            raise InputError(f"{self._file} cannot be read with the key {self._key}: one of them is damaged; {advice}") from None
        return found

    def _bytes(self, file: Path) -> bytes | None:
        """Return what is in a file that is only this user's; None if there is none."""
        try:
            with file.open("rb") as opened:
                if os.name == "posix" and os.fstat(opened.fileno()).st_mode & 0o077:
                    raise InputError(f"others may read or write {file}; write: chmod 600 {file}")
                return opened.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InputError(f"{file} cannot be read: {error.strerror}") from error

    def _write(self, known: Secrets) -> None:
        from cryptography.fernet import Fernet

        key = self._bytes(self._key)
        if key is None:
            key = Fernet.generate_key()
            _write_whole(self._key, key)
        try:
            cipher = Fernet(key.strip())
        except ValueError:
            raise InputError(f"{self._key} holds no key; remove it, then set the secret again") from None
        _write_whole(self._file, cipher.encrypt(json.dumps({"secrets": known}).encode()))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Be the only one that changes the secrets."""
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self._file.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, _MINE)
        except OSError as error:
            raise _not_written(self._file, error) from error
        try:
            with contextlib.suppress(ImportError):  # not on Windows, where one user rarely sets two secrets in one moment
                import fcntl

                fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def _write_whole(file: Path, data: bytes) -> None:
    """Write a file that only this user can read, all of it or nothing. Raises StateError."""
    new = file.with_name(f"{file.name}.{secrets.token_hex(4)}.new")
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MINE), "wb") as opened:
            opened.write(data)
            opened.flush()
            os.fsync(opened.fileno())
        os.replace(new, file)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise _not_written(file, error) from error


def _not_written(file: Path, error: OSError) -> StateError:
    return StateError(f"{file} cannot be written ({error.strerror}); nothing was changed")
