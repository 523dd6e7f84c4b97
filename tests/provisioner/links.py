"""The link between this machine and a test's host: a cable that can be slow, lossy, narrow, cut, and tells what went over it.

Law: a link is a network namespace between two veth pairs, which routes; so what it delays, loses or drops is lost on the way, and
neither end is told. It is shaped by tc: bandwidth by its token bucket, latency and loss by its netem, which netem.py has.
Addresses are of 198.18.0.0/15, which is set aside for such tests. Whoever opens a link closes it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from provisioner.netem import Netem

_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_LOOP = 'while read -r line; do eval "$line" </dev/null >&2; echo $?; done'
_FORWARD = "/proc/sys/net/ipv4/ip_forward"
# Both ends of a cable have one hardware address, so that nobody asks for it: no answer could be lost on a cut link.
_ADDRESS = "02:00:00:00:00:01"
_CABLE = f"link add {{}} address {_ADDRESS} type veth peer name {{}} address {_ADDRESS} netns {{}}"
_NETS = 1 << 15  # of four addresses each
_TABLE, _DETOUR = 7, "netem"
# What nearly all laptops and servers do; a machine that does otherwise would measure something else.
_CONGESTION = "cubic"


class Keeper:
    """A shell in namespaces of its own, which it keeps while it lives; does what it is told, and ends with this process."""

    def __init__(self, *kinds: str, through: Sequence[str] = ()) -> None:
        words = [*through, "unshare", *(f"--{kind}" for kind in kinds), "--", "/bin/sh", "-c", _LOOP]
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={"PATH": _PATH}, start_new_session=True
        )

    @property
    def pid(self) -> int:
        """Return its process id."""
        return self._process.pid

    def tell(self, *commands: str) -> None:
        """Have these commands of a shell done, up to the first that fails; RuntimeError says that one did."""
        line = " && ".join(commands)
        to, back = _pipes(self._process)
        to.write(line + "\n")
        to.flush()
        if (status := back.readline().strip()) != "0":
            raise RuntimeError(f"status {status or 'unknown: it is gone'} of: {line}")

    def close(self) -> None:
        """End it; with it go its namespaces, unless others are in them. Safe twice."""
        _end(self._process)


@dataclass(frozen=True)
class Carried:
    """Bytes with the headers of IP and Ethernet, lost ones too. Where nothing is shaped 64 KiB of TCP have but one header."""

    up: int
    """To the host."""
    down: int
    """From the host."""


class Link:
    """A link from this machine, or from another keeper's network, to that of a keeper, where it is eth0."""

    def __init__(self, far: Keeper, near: Keeper | None = None) -> None:
        self._far, self._near = far, near.pid if near else None
        self._wire = Keeper("net")
        self._netem: Netem | None = None
        self.device, self.number = "", 0
        self.is_cut = False
        try:
            self._prepare()
            self.device, self.number = self._reserve()
            self._lay()
        except BaseException:
            self.close()
            raise

    @property
    def near(self) -> str:
        """Return the address of the near end."""
        return self._address(1)

    @property
    def far(self) -> str:
        """Return the address of the host."""
        return self._address(2)

    def shape(self, *, delay_ms: float = 0, loss: float = 0, rate_mbit: float = 0) -> None:
        """Make the link one with this round-trip time, share of packets lost each way, and bandwidth each way; 0 is none.

        What is under way stays so, except that it is lost when there is no latency and no loss any more.
        """
        if delay_ms or loss:
            self._hold_up(delay_ms / 2000, loss)
        elif self._netem:
            self._wire.tell(*(f"ip rule del iif {end} table {_TABLE}" for end in ("near", "far")))
            self._netem.close()
            self._netem = None
        self._wire.tell(*(f"tc qdisc replace dev {end} root {_bucket(rate_mbit)}" for end in ("near", "far")))

    def cut(self) -> None:
        """Drop every packet, in silence."""
        self.is_cut = True
        self._wire.tell(f"echo 0 >{_FORWARD}")

    def mend(self) -> None:
        """Carry packets again."""
        self.is_cut = False
        self._wire.tell(f"echo 1 >{_FORWARD}")

    def reset(self) -> None:
        """Break every TCP connection over the link: the host's end is gone, the near end is told so (if it is not cut)."""
        ss = ["nsenter", "--target", str(self._far.pid), "--net", "ss", "--no-header", "--tcp"]
        at = ["state", "established", "dst", self.near]
        subprocess.run([*ss, "--kill", *at], check=True, capture_output=True)
        if left := subprocess.run([*ss, *at], check=True, capture_output=True, text=True).stdout:
            raise RuntimeError(f"this kernel does not break connections that others hold: {left}")

    def carried(self) -> Carried:
        """Return how many bytes have gone over the link since it was made."""
        return Carried(up=_sent(self._near or os.getpid(), self.device), down=_sent(self._far.pid, "eth0"))

    def close(self) -> None:
        """Take the link away. Safe twice."""
        if self._netem:
            self._netem.close()
        if self.device:
            with contextlib.suppress(RuntimeError):  # a network that is gone has taken it along
                _ip(self._near, f"link del {self.device}")
        self._wire.close()

    def _prepare(self) -> None:
        conf = "/proc/sys/net/ipv4/conf"
        self._wire.tell(f"echo 1 >{_FORWARD}", f"echo 0 >{conf}/all/rp_filter", f"echo 0 >{conf}/default/rp_filter", *_SIX)

    def _reserve(self) -> tuple[str, int]:
        """Make the first cable, whose name nobody else has, and so the addresses either."""
        while True:
            number = secrets.randbelow(_NETS)
            name = f"rt{number}"
            try:
                _ip(self._near, _CABLE.format(name, "near", self._wire.pid))
            except RuntimeError as error:
                if "File exists" not in str(error):
                    raise
            else:
                return name, number

    def _lay(self) -> None:
        _ip(self._near, *self._end_of(self.near, self.far, self.device))
        _ip(
            self._wire.pid,
            _CABLE.format("far", "eth0", self._far.pid),
            *(f"link set {end} arp off up" for end in ("near", "far")),
            f"route add {self.near} dev near",
            f"route add {self.far} dev far",
        )
        _ip(self._far.pid, "link set lo up", *self._end_of(self.far, self.near, "eth0"))

    def _end_of(self, mine: str, other: str, device: str) -> tuple[str, ...]:
        return (
            f"link set {device} addrgenmode none arp off up",
            f"addr add {mine} peer {other} dev {device}",
            f"route replace {other} dev {device} src {mine} congctl {_CONGESTION}",
        )

    def _hold_up(self, seconds: float, loss: float) -> None:
        """Have packets take the way round netem, which holds them up or loses them."""
        if self._netem:
            self._netem.shape(seconds, loss)
            return
        self._netem = Netem(self._wire.pid, _DETOUR, _ADDRESS)
        self._netem.shape(seconds, loss)
        rules = (f"ip rule add iif {end} table {_TABLE}" for end in ("near", "far"))
        self._wire.tell(f"ip route add default dev {_DETOUR} table {_TABLE}", *rules)

    def _address(self, place: int) -> str:
        net = self.number * 4
        return f"198.{18 + (net >> 16)}.{net >> 8 & 255}.{(net & 255) + place}"


_SIX = ("for f in /proc/sys/net/ipv6/conf/default/disable_ipv6; do [ ! -e $f ] || echo 1 >$f; done",)


def _bucket(rate_mbit: float) -> str:
    """Return the discipline that lets so much through, with a queue of 100 ms before it."""
    if not rate_mbit:
        return "noqueue"
    rate = int(rate_mbit * 125_000)  # bytes a second
    return f"tbf rate {rate * 8}bit burst {max(rate // 500, 16_000)} limit {max(rate // 10, 64_000)}"


def _ip(target: int | None, *lines: str) -> None:
    inside = ["nsenter", "--target", str(target), "--net"] if target else []
    done = subprocess.run([*inside, "ip", "-batch", "-"], input="\n".join(lines), text=True, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)


def _sent(pid: int, device: str) -> int:
    rows = Path(f"/proc/{pid}/net/dev").read_text().splitlines()
    return int(next(row for row in rows if row.strip().startswith(f"{device}:")).split(":")[1].split()[8])


def _pipes(process: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("this process has no pipes")
    return process.stdin, process.stdout


def _end(process: subprocess.Popen[str]) -> None:
    for pipe in _pipes(process):
        with contextlib.suppress(BrokenPipeError):
            pipe.close()
    process.kill()
    process.wait()
