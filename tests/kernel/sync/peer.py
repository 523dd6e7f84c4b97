"""One side of an exchange, as a process of its own: runs code in its `__main__`, packs variables, takes variables in.

Commands and answers are frames of pickled builtins on stdin and stdout, since what is under test is not the transport.
"""

from __future__ import annotations

import pickle
import struct
import subprocess
import sys
from typing import Any

HEAD = struct.Struct("<Q")


def read(stream: Any) -> Any:
    """Read one frame; None at the end."""
    head = stream.read(HEAD.size)
    return pickle.loads(stream.read(HEAD.unpack(head)[0])) if head else None


def write(stream: Any, message: Any) -> None:
    """Write one frame."""
    data = pickle.dumps(message)
    stream.write(HEAD.pack(len(data)) + data)
    stream.flush()


class Peer:
    """A running process and what can be asked of it."""

    def __init__(self) -> None:
        """Start the process with this process's import path."""
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; import importlib.util as u\n"
            f"s = u.spec_from_file_location('peer', {__file__!r}); m = u.module_from_spec(s)\n"
            "s.loader.exec_module(m); m.serve()"
        )
        self.process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, *request: Any) -> Any:
        """Send a request and return the answer; an error there is raised here as AssertionError."""
        write(self.process.stdin, request)
        answer = read(self.process.stdout)
        assert answer is not None, f"the peer died with code {self.process.wait()}"
        good, value = answer
        assert good, value
        return value

    def run(self, code: str) -> None:
        """Run statements there."""
        self.ask("run", code)

    def value(self, expression: str) -> Any:
        """Return the value of an expression there, which must be a builtin one."""
        return self.ask("value", expression)

    def pack(self, *names: str) -> tuple[bytes, list[bytes], dict[str, str], set[str]]:
        """Return stream, buffers, failures as text, and deps."""
        return self.ask("pack", names)

    def take(self, stream: bytes, buffers: list[bytes]) -> dict[str, str]:
        """Bind variables there; return failures as text."""
        return self.ask("take", stream, buffers)

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def carry(source: Peer, target: Peer, *names: str) -> dict[str, str]:
    """Move variables and all that they need from one process to the other; return failures by name."""
    pending, done = list(names), set()
    while True:
        done |= set(pending)
        stream, buffers, failures, deps = source.pack(*sorted(done))
        pending = [name for name in deps - done if source.value(f"{name!r} in globals()")]
        if not pending:
            return failures | target.take(stream, buffers)


def remote_cell(here: Peer, there: Peer, code: str, **options: Any) -> dict[str, Any]:
    """Run a cell there as the product does: send what it reads, run it, bring home what it changed; tell what moved."""
    out = here.ask("depart", code, options.get("inputs"))
    back = there.ask("cell", code, out, options.get("outputs"))
    here.ask("arrive", back)
    return {
        "sent": out["names"], "skipped": out["skipped"], "came": back["names"], "forgotten": out["deletes"],
        "gone": back["deletes"], "send_failures": out["failures"], "failures": back["failures"], "mutated": back["mutated"],
    }  # fmt: skip


def _parts(outgoing: Any) -> dict[str, Any]:
    return {
        "stream": outgoing.encoded.stream, "buffers": [bytes(buffer) for buffer in outgoing.encoded.buffers],
        "names": sorted(outgoing.encoded.names), "deletes": list(outgoing.deletes), "skipped": list(outgoing.skipped),
        "mutated": sorted(outgoing.mutated), "failures": {name: str(error) for name, error in outgoing.encoded.failures.items()},
    }  # fmt: skip


def do_depart(namespace: dict[str, Any], code: str, inputs: list[str] | None) -> dict[str, Any]:
    """Pack what a cell reads, or the user's own list."""
    from remora.sync import analyse

    ledger, names = _ledger(), analyse(code)
    outgoing = ledger.outgoing(names.reads if inputs is None else inputs, namespace, explicit=inputs is not None)
    ledger.sent(outgoing)
    return _parts(outgoing) | {"reads": None if names.dynamic or outgoing.dynamic else sorted(names.reads)}


def do_cell(namespace: dict[str, Any], code: str, arrived: dict[str, Any], outputs: list[str] | None) -> dict[str, Any]:
    """Take in what arrived, run the cell, pack what it changed; an exception of the cell is left to the caller's checks."""
    from remora.sync import bind, decode_each

    ledger = _ledger()
    done = decode_each(arrived["stream"], arrived["buffers"], namespace=namespace)
    bind(done.values, namespace, deletes=arrived["deletes"])
    ledger.incoming(done.values, namespace, arrived["deletes"])
    before = ledger.before(namespace, arrived["reads"])
    try:
        do_run(namespace, code)
    except ArithmeticError:
        namespace["failed"] = True
    changes = ledger.changes(namespace, before, outputs)
    ledger.sent(changes)
    kinds = {name: type(namespace.get(name)).__name__ for name in changes.encoded.failures}
    return _parts(changes) | {"kinds": kinds}


def do_arrive(namespace: dict[str, Any], back: dict[str, Any]) -> None:
    """Bind what came home; what could not come becomes a RemoteValue."""
    from remora.sync import RemoteValue, bind, decode_each

    done = decode_each(back["stream"], back["buffers"], namespace=namespace)
    away = {name: RemoteValue(name, back["kinds"][name], "<text>", "main", why) for name, why in back["failures"].items()}
    bind(done.values | away, namespace, mutated=back["mutated"], deletes=back["deletes"])
    _ledger().incoming(done.values | away, namespace, back["deletes"])


def do_forget(namespace: dict[str, Any]) -> None:
    """Note that the other side is gone."""
    _ledger().forget()


_kept: dict[str, Any] = {}


def _ledger() -> Any:
    from remora.sync import Ledger

    return _kept.setdefault("ledger", Ledger("main"))


def serve() -> None:
    """Answer requests until stdin ends."""
    import io
    import os
    import traceback
    import types

    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdin = io.StringIO()
    main = types.ModuleType("__main__")
    main.__spec__ = None
    sys.modules["__main__"] = main
    while (request := read(requests)) is not None:
        try:
            write(answers, (True, globals()["do_" + request[0]](vars(main), *request[1:])))
        except BaseException:
            write(answers, (False, traceback.format_exc()))


def do_reset(namespace: dict[str, Any]) -> None:
    """Forget all variables."""
    for name in [name for name in namespace if not name.startswith("__")]:
        del namespace[name]
    _kept.clear()


def do_run(namespace: dict[str, Any], code: str) -> None:
    """Run statements."""
    exec(compile(code, "<cell>", "exec", dont_inherit=True), namespace)


def do_value(namespace: dict[str, Any], expression: str) -> Any:
    """Evaluate an expression."""
    return eval(expression, namespace)


def do_pack(namespace: dict[str, Any], names: tuple[str, ...]) -> Any:
    """Encode variables."""
    from remora.sync import encode

    done = encode({name: namespace[name] for name in names}, namespace=namespace)
    failures = {name: str(error) for name, error in done.failures.items()}
    return done.stream, [bytes(buffer) for buffer in done.buffers], failures, set(done.deps)


def do_take(namespace: dict[str, Any], stream: bytes, buffers: list[bytes]) -> dict[str, str]:
    """Decode variables and bind them."""
    from remora.sync import decode_each

    done = decode_each(stream, buffers, namespace=namespace)
    namespace.update(done.values)
    return {name: str(error) for name, error in done.failures.items()}
