"""The sandbox proper, as its supervisor holds it.

Jail, limits and the two descriptors that lead inside, opened and closed together.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path

from remora.errors import PlaceError, RemoraError
from remora.settings import NO_UPLINK

from . import jails, limits
from .endings import Evidence
from .masking import Mask
from .order import GROUPS, LOG, SCRATCH, Order
from .sandbox import Mount, OpenSandbox, SandboxPlan

_TAIL = 2000


class Vessel:
    """Opens one jail by an order, once; `close` is safe twice and leaves nothing of it on the machine."""

    def __init__(self, order: Order, mask: Mask) -> None:
        """Take the order and the secrets; nothing is opened yet."""
        self._order, self._mask = order, mask
        self._directory = Path(order.directory)
        self._sandbox: OpenSandbox | None = None
        self._keeper: limits.LimitKeeper | None = None
        self.facts: dict[str, object] = {}

    def open(self) -> tuple[socket.socket, socket.socket]:
        """Open the jail and return our ends of the guest's connection and of its uplink. Raises PlaceError."""
        guest, theirs = socket.socketpair()
        uplink, their_uplink = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with theirs, their_uplink:
            descriptors = (theirs.fileno(), their_uplink.fileno())
            try:
                self._keeper = limits.keep(self._order.sandbox, limits.Limits(memory=self._order.memory, cpu=self._order.cpu))
                (self._directory / GROUPS).write_text("\n".join(str(entrance.parent) for entrance in self._keeper.entrances))
                self._sandbox = jails.named(self._order.jail).open(self._plan(descriptors, self._keeper))
            except (OSError, RemoraError) as error:
                guest.close()
                uplink.close()
                if isinstance(error, RemoraError):
                    raise
                raise PlaceError(f"the sandbox could not be opened: {error}", reason="sandbox-failed") from error
        warnings = [*self._keeper.warnings, *self._sandbox.warnings]
        self.facts = {"pid": self._sandbox.pid, "jail": self._order.jail, "limits": self._keeper.kind, "warnings": warnings}
        return guest, uplink

    def _plan(self, descriptors: tuple[int, int], keeper: limits.LimitKeeper) -> SandboxPlan:
        order = self._order
        guest, uplink = map(str, descriptors)
        inherited = {"REMORA_GUEST_FD": guest, "REMORA_SANDBOX": order.sandbox}
        inherited["REMORA_UPLINK_FD"] = uplink if order.doors else NO_UPLINK
        if secrets := self._mask.variables:
            inherited["REMORA_SECRETS"] = ",".join(secrets)
        if order.doors:  # not to be seen from inside, but the doors are known by the paths that they have there
            inherited["REMORA_STATE_DIR"] = str(Path(order.doors[0]).parents[1])
        return SandboxPlan(
            id=order.sandbox,
            argv=order.argv,
            environment=order.environment | secrets | inherited,
            folder=Path(order.folder),
            home=Path(order.home),
            scratch=self._directory / SCRATCH,
            mounts=tuple(Mount(Path(source), Path(target), writable) for source, target, writable in order.mounts),
            pass_fds=descriptors,
            hostname=f"remora-{order.sandbox}"[:64],
            host_id=order.host_id,
            log=self._directory / LOG,
            groups=keeper.entrances,
            pids=limits.DEFAULT_PIDS,
            shared_memory=order.memory // 2 if order.memory else 0,
            cpus=limits.affinity(order.cpu, order.sandbox),
            layers=tuple(map(Path, order.layers)),
            whole=order.whole,
        )

    async def wait(self, too_much: Callable[[], None]) -> int:
        """Wait for the sandbox's end and return its exit code.

        `too_much` is called when it passes a limit that we watch ourselves.
        """
        assert self._sandbox is not None and self._keeper is not None
        watching = asyncio.get_running_loop().create_task(self._keeper.watch(self._sandbox.processes, too_much))
        try:
            return await self._sandbox.wait()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    def kill(self) -> None:
        """End every process inside at once."""
        if self._sandbox is not None:
            self._sandbox.kill()

    def evidence(self) -> Evidence:
        """Return what the limits and the log know about the end; to be asked before `close`."""
        keeper = self._keeper
        return Evidence(
            asked=None,
            code=None,
            out_of_memory=bool(keeper and keeper.oom_happened()),
            peak=keeper.peak() if keeper else None,
            limit=self._order.memory,
            trouble=self.log_tail(),
        )

    def log_tail(self) -> str:
        """Return the last lines of what the sandbox's processes wrote to their own standard error."""
        try:
            return self._mask.text((self._directory / LOG).read_text(errors="replace"))[-_TAIL:].strip()
        except OSError:
            return ""

    def close(self) -> None:
        """Take away the jail, its limits and its private files; safe twice."""
        if self._sandbox is not None:
            self._sandbox.close()
        if self._keeper is not None:
            self._keeper.close()
