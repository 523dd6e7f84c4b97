"""What cannot travel, and what to do instead: things that are tied to this process, its files, sockets, threads or devices.

Law: a table from a class (module and qualified name, looked up along the `__mro__`, so that nothing is imported for it) to a
reason and a way out. Extended by adding a row.
"""

from __future__ import annotations

import threading
from typing import Any, NoReturn, cast

from remora.errors import SendError

CREATE = "create it inside the remote cell"
REFUSED: dict[tuple[str, str], tuple[str, str]] = {
    ("builtins", "generator"): ("its frame runs in this process", "send list(...) of it, or create it inside the remote cell"),
    ("builtins", "coroutine"): ("its frame runs in this process", "await it inside the remote cell"),
    ("builtins", "async_generator"): ("its frame runs in this process", CREATE),
    ("builtins", "frame"): ("it belongs to this process", "keep its text instead"),
    ("builtins", "traceback"): ("it belongs to this process", "keep traceback.format_exc() instead"),
    ("_io", "_IOBase"): ("an open file belongs to this process", "send its path and open it inside the remote cell"),
    ("_socket", "socket"): ("a socket belongs to this process", CREATE),
    ("ssl", "SSLSocket"): ("a socket belongs to this process", CREATE),
    ("sqlite3", "Connection"): ("a database connection belongs to this process", "open it inside the remote cell"),
    ("sqlite3", "Cursor"): ("a database connection belongs to this process", "open it inside the remote cell"),
    ("mmap", "mmap"): ("mapped memory belongs to this process", "send its path and map it inside the remote cell"),
    ("threading", "Thread"): ("a thread belongs to this process", "start it inside the remote cell"),
    ("_thread", "_local"): ("its contents belong to this process's threads", CREATE),
    ("subprocess", "Popen"): ("it watches a process of this machine", CREATE),
    ("multiprocessing.process", "BaseProcess"): ("it watches a process of this machine", CREATE),
    ("concurrent.futures._base", "Executor"): ("it owns threads or processes", CREATE),
    ("concurrent.futures._base", "Future"): ("it is fulfilled in this process", "send its result()"),
    ("_asyncio", "Future"): ("it is fulfilled by this process's event loop", "await it inside the remote cell"),
    ("_asyncio", "Task"): ("it runs in this process's event loop", "await it inside the remote cell"),
    ("asyncio.events", "AbstractEventLoop"): ("an event loop belongs to this process", CREATE),
    ("builtins", "ContextVar"): ("its identity is its meaning, and that stays in this process", CREATE),
    ("_contextvars", "ContextVar"): ("its identity is its meaning, and that stays in this process", CREATE),
    ("ipywidgets.widgets.widget", "Widget"): ("a widget lives where it was made", CREATE),
    ("IPython.core.interactiveshell", "InteractiveShell"): ("it is this kernel", "call get_ipython() inside the remote cell"),
}  # fmt: skip
# In-memory files are no open files.
SENDABLE = {("_io", "BytesIO"), ("_io", "StringIO")}


def refuse(value: Any, why: str, instead: str) -> NoReturn:
    """Raise SendError for a value; facts hold the parts of the message, to which the path is added later."""
    kind = type_name(type(value))
    raise SendError(f"{kind} cannot be sent: {why}; {instead}", type=kind, why=why, instead=instead)


def refuse_by_table(packer: Any, value: Any) -> NoReturn:
    """Refuse a value of a class that stands in the table."""
    del packer
    row = next(row for row in map(_row, type(value).__mro__) if row is not None)
    refuse(value, *row)


def is_refused(kind: type) -> bool:
    """Tell whether a class stands in the table."""
    if any((base.__module__, base.__qualname__) in SENDABLE for base in kind.__mro__):
        return False
    return any(_row(base) is not None for base in kind.__mro__)


def _row(kind: type) -> tuple[str, str] | None:
    return REFUSED.get((kind.__module__, kind.__qualname__))


def type_name(kind: type) -> str:
    """Return the name of a class as a user knows it."""
    return kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}"


def check_free(packer: Any, lock: Any) -> None:
    """Raise SendError for a lock that somebody holds."""
    del packer
    owned = isinstance(lock, type(threading.RLock())) and cast(Any, lock)._is_owned()
    if owned or not lock.acquire(blocking=False):
        refuse(lock, "it is held", "release it first, or create it inside the remote cell")
    lock.release()
