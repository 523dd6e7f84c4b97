"""Every message between the parts of Remora. How they become bytes is in `frames.py`.

Law: a message is a frozen dataclass of JSON values plus `buffers` (bulk bytes, never in JSON). To add one, write its class
here and register its handler where it is received. Unknown fields are passed over (another version of the same protocol may
know more); an unknown kind or another protocol is a ProtocolError. Standard library only, no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, NewType, TypeAlias

PROTOCOL = 1
"""Two parts talk only if they say the same number; raised when a message changes its meaning."""

RunId = NewType("RunId", str)
SandboxId = NewType("SandboxId", str)
Buffer: TypeAlias = "bytes | bytearray | memoryview"
Fields = dict[str, Any]


@dataclass(frozen=True)
class Message:
    """Base of all messages."""

    buffers: tuple[Buffer, ...] = field(default=(), kw_only=True)
    kinds: ClassVar[dict[str, type[Message]]] = {}

    def __init_subclass__(cls) -> None:
        """Register the class under its own name, which is the kind on the wire."""
        Message.kinds[cls.__name__] = cls


@dataclass(frozen=True)
class Request(Message):
    """A message that is answered by exactly one Answer with the same `ask`; `ask` is set by the sender's Peer."""

    ask: int = field(default=0, kw_only=True)


@dataclass(frozen=True)
class Answer(Message):
    """What came of a request: `error` is `RemoraError.to_dict()` or None, `result` plain JSON values."""

    ask: int
    result: Fields = field(default_factory=dict)
    error: Fields | None = None


@dataclass(frozen=True)
class Hello(Request):
    """First message of whoever connects; `role` is for logs and listings."""

    protocol: int
    version: str
    role: str


@dataclass(frozen=True)
class Inside(Message):
    """First of all on a connection that a supervisor opens for code inside its sandbox: who it is that asks."""

    sandbox: SandboxId


AT_REST = b"="
"""What answers at a folder's door, whose socket `endpoint` names, if nothing has to be exchanged; another byte if not so."""
SAYS = b"+"
"""What comes before a line for a person, which comes before the answer if it is asked for by this, before the question."""


# ---- kernel, command line → backend -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OpenSession(Request):
    """Give me the session's sandbox, made by `spec` if there is none. Answer: facts, `endpoint`, `notices`, whether it is `new`.

    It adopts the living `sandbox`, whoever opened that; `instead_of` did not answer. `secrets` (`giving`) are forgotten.
    """

    kernel: str
    session: str
    spec: Fields
    sandbox: SandboxId | None = None
    instead_of: SandboxId | None = None
    secrets: Fields = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class LeaveKernel(Request):
    """A kernel has ended for good: so do its sandboxes, each when its runs are over."""

    kernel: str


@dataclass(frozen=True)
class SubmitCall(Request):
    """Queue a function call on a sandbox made by `spec`; buffers: what the guest decodes. Answered as soon as it is durable."""

    run: RunId
    name: str
    spec: Fields
    body: Fields
    secrets: Fields = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class ListAll(Request):
    """Answer: `sandboxes` and `runs` (newest first, at most `limit`), each a dictionary of facts, and the `machine`."""

    limit: int = 200


@dataclass(frozen=True)
class FindSandbox(Request):
    """Answer: the sandbox's facts, also when it has ended."""

    sandbox: SandboxId


@dataclass(frozen=True)
class FindRun(Request):
    """Answer: the run's facts, and its sandbox's `endpoint` while that lives. `run` may be a unique prefix."""

    run: str


@dataclass(frozen=True)
class StopSandboxes(Request):
    """End these sandboxes (ids, unique prefixes), or all of them and then the backend itself with `everything`."""

    sandboxes: list[str]
    everything: bool = False


@dataclass(frozen=True)
class Ask(Request):
    """A question about "images", "machines", "files", "ports", or work on them ("build" …); how far it is comes as Stage."""

    about: str
    op: str
    args: Fields


@dataclass(frozen=True)
class Stage(Message):
    """How far the request `ask` has come that takes its time: the stage, `seconds` since its start, and more in words."""

    ask: int
    name: str
    seconds: float
    text: str = ""


@dataclass(frozen=True)
class Question(Request):
    """From the backend to who waits for `about`: what only a person can say; `secret`: not shown. Answer: `value`, or null."""

    about: int
    text: str
    secret: bool


@dataclass(frozen=True)
class GiveUp(Message):
    """The request `ask` is not wanted any more; it may be too late, and is answered in any case."""

    ask: int


# ---- to backend or supervisor: the life of one run ---------------------------------------------------------------------------


@dataclass(frozen=True)
class StartRun(Request):
    """Run `body` in this sandbox after what is queued; `form` is "cell", "call" or "notebook". The sender follows it at once."""

    run: RunId
    form: str
    name: str
    body: Fields


@dataclass(frozen=True)
class FollowRun(Request):
    """Send every Record of this run with `seq` > `after`, then (`wait`) those to come; answered when the last one is sent."""

    run: RunId
    after: int = -1
    wait: bool = True


@dataclass(frozen=True)
class InterruptRun(Request):
    """Raise KeyboardInterrupt in the running code, as a stop button does."""

    run: RunId


@dataclass(frozen=True)
class CancelRun(Request):
    """End a run with the reason "cancelled": dropped if queued, interrupted if running, its sandbox killed if `hard`."""

    run: RunId
    hard: bool = False


@dataclass(frozen=True)
class Record(Message):
    """One entry of a run log, and what followers get: `type` is "state", "output", "input_request" or "result".

    state: {"state", "reason"?, …facts}. output: a Jupyter message {"msg_type", "content", "metadata", "cell"?}. result: {"ok",
    "reason", "error"?, "names"?, "stats", …}, just before the run's last state. `at`: Unix seconds.
    """

    run: RunId
    seq: int
    at: float
    type: str
    content: Fields


# ---- supervisor ↔ its watchers (the agent) ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Watch(Request):
    """Send me how sandbox and runs change, small cells' steps together; answer: facts of the sandbox and all runs known."""


@dataclass(frozen=True)
class SandboxChanged(Message):
    """The sandbox changed its state; facts hold pid, peak memory, the reason of its end."""

    sandbox: SandboxId
    state: str
    facts: Fields


@dataclass(frozen=True)
class RunChanged(Message):
    """A run changed its state."""

    run: RunId
    state: str
    facts: Fields


@dataclass(frozen=True)
class StopSandbox(Request):
    """End the sandbox: what is queued or running ends with `reason`. Answered when nothing of it is left."""

    reason: str = "stopped"


# ---- supervisor ↔ guest, and kernel → guest through the supervisor -----------------------------------------------------------


@dataclass(frozen=True)
class Ready(Message):
    """The guest can run code; facts: Python version, versions of its packages, pid inside."""

    facts: Fields


@dataclass(frozen=True)
class Emit(Message):
    """The guest's raw material for a Record of `run`; the supervisor gives it a number and a time."""

    run: RunId
    type: str
    content: Fields


@dataclass(frozen=True)
class Interrupt(Message):
    """Raise KeyboardInterrupt in the main thread and in its child processes."""

    run: RunId


@dataclass(frozen=True)
class InputReply(Message):
    """What the user typed for the run's last input_request, or why nothing could be asked."""

    run: RunId
    value: str = ""
    error: str | None = None


@dataclass(frozen=True)
class CommMessage(Message):
    """A comm_msg, comm_open or comm_close from a front end for a comm of the guest; `run` and `parent` route what it prints."""

    msg_type: str
    content: Fields
    metadata: Fields
    parent: Fields


@dataclass(frozen=True)
class ShellBytes(Message):
    """What is typed into a shell or printed by it; `size` is columns and rows, `taken` the bytes printed so far."""

    shell: str
    size: list[int] | None = None
    taken: int = 0


@dataclass(frozen=True)
class AskGuest(Request):
    """A question to the guest ("complete", "pull", "names" …), answered between cells; "shell" at any time, when it has ended."""

    op: str
    args: Fields
