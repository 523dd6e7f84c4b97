"""A Linux in user mode that has tc's netem, which small kernels come without: it holds up the packets of a link, and loses some.

Law: what is routed into its device comes out of it again, in the same order, later or never. It sees single packets of the size
of the wire, where netem on a virtual cable would lose 64 KiB of TCP at once. Its root is that of this machine, read-only.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

_INIT = Path(__file__).with_name("netem.sh")
_MEMORY = "256M"
"""Of which is used what is held up."""
_LIMIT = 60_000
"""Packets held up at most; what comes then is lost."""


class Netem:
    """One such Linux, on the network of another process; ends with this one."""

    def __init__(self, network: int, device: str, address: str) -> None:
        """Make a device on the network of that process, and boot; `address`: of hardware, as all others there.

        RuntimeError if it does not come up.
        """
        inside = ["nsenter", "--target", str(network), "--net"]
        # The kernel is to hand over packets, not the 64 KiB of TCP that a virtual cable carries as one.
        single = "gso_max_segs 1 gso_max_size 1514"
        for words in (
            f"tuntap add dev {device} mode tap",
            f"link set {device} address {address} addrgenmode none arp off txqueuelen 10000 {single} up",
        ):
            subprocess.run([*inside, "ip", *words.split()], check=True)
        self._device = [*inside, "ip", "link", "del", device]
        folder = tempfile.mkdtemp(prefix="netem-")
        boot = [f"mem={_MEMORY}", f"uml_dir={folder}/", "rootfstype=hostfs", "rootflags=/", "ro", f'init="{_INIT}"']
        console = ["con=null", "con0=fd:0,fd:1", "quiet", "loglevel=0", f"address={address}"]
        self._process = subprocess.Popen(
            [*inside, "nice", "-n", "-20", "linux.uml", *boot, *console, f"vec0:transport=tap,ifname={device},depth=128,gro=0"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        # Its parts outlive it, and it does not always hear that its input has ended.
        clearing = f'cat; kill -KILL -- -{self._process.pid} 2>/dev/null; rm -rf "$0"'
        self._clearing = subprocess.Popen(["sh", "-c", clearing, folder], stdin=subprocess.PIPE, start_new_session=True)
        try:
            self._read_to("ready")
        except BaseException:
            self.close()
            raise

    def shape(self, seconds: float, loss: float) -> None:
        """Hold every packet up for so long, and lose that share of them."""
        netem = f"netem limit {_LIMIT} delay {round(seconds * 1e6)}us loss {loss * 100:.4f}%"
        self._tell(f"tc qdisc replace dev vec0 root {netem}")

    def close(self) -> None:
        """Take it away; what it holds up is lost. Safe twice."""
        for process in (self._clearing, self._process):
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
            process.wait()
        subprocess.run(self._device, check=False, capture_output=True)  # with its network it may be gone

    def _tell(self, line: str) -> None:
        """Have a line of a shell done there. RuntimeError if it failed."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        said, status = self._read_to("status ")
        if status != "0":
            raise RuntimeError(f"status {status} of {line}: {said}")

    def _read_to(self, word: str) -> tuple[str, str]:
        """Return what it says up to a line that begins so, and the rest of that line. RuntimeError if it has died."""
        assert self._process.stdout is not None
        said = ""
        for line in self._process.stdout:
            if line.startswith(word):
                return said, line.removeprefix(word).strip()
            said += line
        raise RuntimeError(f"the Linux in user mode has ended (status {self._process.wait()}): {said}")
