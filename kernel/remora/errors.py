"""The one tree of errors, split by whose fault it is.

    RemoraError
    ├── UserError            what was written or asked cannot be done as it stands
    │   ├── OptionError          an option of %%remote, a function or the command line
    │   ├── InputError           a notebook, a file or a parameter that was handed over
    │   ├── SendError            a value that cannot travel
    │   └── Refused              asked of something that is in the wrong state or does not exist
    ├── PlaceError           a machine, a sandbox or its limits ended the work
    │   ├── Unavailable          nobody has what is asked (no such GPU, no jail strong enough)
    │   ├── RunEnded             a run that ended before its code did; `reason` says how
    │   ├── ImageFailed          a step of an image could not be made; facts hold the step and the end of its log
    │   ├── StoreRefused         content that the image store does not take in: it leads outside, or is not what it says
    │   └── StateError           the state directory cannot be used (full, not writable)
    ├── RemoteError          the user's code failed there with an exception that cannot be rebuilt here
    └── InternalError        ours: a broken frame, another protocol, a part that did not answer
        ├── ProtocolError
        └── BackendError

Law: every error carries a short `reason` (stable, for programs) and a message for a person that says what to do. An error
crosses a process as the plain dictionary made by `to_dict`. Standard library only; nothing here does I/O.
"""

from __future__ import annotations

from typing import Any, ClassVar


class RemoraError(Exception):
    """Base of all errors of Remora; `reason` is a stable code, the text is for a person."""

    reason: str = "error"
    exit_code: ClassVar[int] = 3

    def __init__(self, message: str, *, reason: str | None = None, **facts: Any) -> None:
        """Take the text for a person, optionally a more precise `reason`, and facts as plain JSON values."""
        super().__init__(message)
        if reason is not None:
            self.reason = reason
        self.facts: dict[str, Any] = facts

    def to_dict(self) -> dict[str, Any]:
        """Return the error as plain JSON values, as it crosses a process."""
        return {"error": type(self).__name__, "reason": self.reason, "message": str(self), "facts": self.facts}

    def _render_traceback_(self) -> list[str]:
        """Return what IPython prints in a cell: one line, since the text already says what to do."""
        return [f"{type(self).__name__} [{self.reason}]: {self}"]


class UserError(RemoraError):
    """What was written or asked cannot be done as it stands."""

    reason = "usage"
    exit_code = 2


class OptionError(UserError):
    """An option is unknown, malformed or contradicts another."""

    reason = "option"


class InputError(UserError):
    """A notebook, file or parameter that was handed over cannot be used."""

    reason = "input"


class SendError(UserError):
    """A value cannot travel; the text names the variable and the path inside it."""

    reason = "cannot-send"


class Refused(UserError):
    """The run, sandbox or session does not exist, or its state does not allow what was asked."""

    reason = "refused"


class PlaceError(RemoraError):
    """A machine, a sandbox or its limits stand in the way."""

    reason = "place"


class Unavailable(PlaceError):
    """Nobody has what is asked; the text lists what there is."""

    reason = "unavailable"


class RunEnded(PlaceError):
    """A run ended before its code did; `reason` is one of `states.EndReason`."""

    reason = "ended"


class ImageFailed(PlaceError):
    """A step of an image could not be made; facts hold `step`, `key` and `log` (its last lines)."""

    reason = "image-failed"


class StoreRefused(PlaceError):
    """Content that the image store does not take in; `reason` says why, such as "path-escapes" or "wrong-digest"."""

    reason = "store-refused"


class StateError(PlaceError):
    """The state directory is full, cannot be written or belongs to somebody else."""

    reason = "state-directory"


class RemoteError(RemoraError):
    """The user's code failed there with an exception that cannot be rebuilt here; facts hold `ename` and `evalue`."""

    reason = "remote-exception"
    exit_code = 1


class InternalError(RemoraError):
    """Something of ours failed."""

    reason = "internal"


class ProtocolError(InternalError):
    """A frame is malformed, too large, or of another protocol."""

    reason = "protocol"


class BackendError(InternalError):
    """The backend cannot be started or did not answer."""

    reason = "backend"


def _family(root: type[RemoraError]) -> dict[str, type[RemoraError]]:
    found = {root.__name__: root}
    for child in root.__subclasses__():
        found |= _family(child)
    return found


def from_dict(data: dict[str, Any]) -> RemoraError:
    """Rebuild an error from `to_dict`; a name that is not of this version becomes its nearest ancestor, RemoraError."""
    kind = _family(RemoraError).get(str(data.get("error")), RemoraError)
    facts = data.get("facts")
    error = kind(str(data.get("message", "")), reason=str(data.get("reason", "error")))
    error.facts |= facts if isinstance(facts, dict) else {}
    return error
