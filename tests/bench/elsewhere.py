"""What another machine costs: a host in a network namespace, reached by OpenSSH over links of several lengths.

Law: nothing of ours is there at first. Rounds here and there are by turns, in one kernel. A figure with a limit is the share of
that limit which was needed. Without root there is no host, and nothing is measured.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

from figures import Figure
from given import ROOT, box, environment, hosts_can_be
from place import Notebook, Place
from provisioner.hosts import Host

_WARM, _FIRST, _PRINTS = 25, 5, 40
_LINKS = ((2, 0.0), (50, 0.0), (150, 0.0), (50, 0.01))
_PASS, _THERE = "%%remote session=here\npass", "%%remote on=box\npass"
_TICKS = (
    "%%remote on=box session=ticks\nimport time\n"
    "for _ in range(100_000):\n    print(time.time(), flush=True)\n    time.sleep(0.2)"
)
_UP = "%%remote on=box session=bulk\npass"
_DOWN = "%%remote on=box session=bulk\nopen('down.bin', 'wb').write(__import__('os').urandom(1 << 30))"


def measure(place: Place) -> list[Figure]:
    """Measure bytes and round trips of first cells, warm cells over several links, and a print beside a transfer."""
    if not hosts_can_be():
        return []
    python = environment(place, f"{ROOT}[ssh]")
    with box(place) as host:
        return [
            *_bytes(host, place, python),
            *_first_cells(host, place, python),
            *_warm_cells(host, place, python),
            *_beside_bulk(host, place, python),
        ]


# ---- bytes


def _bytes(host: Host, place: Place, python: str) -> list[Figure]:
    host.link.shape(delay_ms=2)
    first = _carried(host, lambda: _first(place, python, _THERE))
    again = _carried(host, lambda: _first(place, python, _THERE))
    place.stop()
    backend = _carried(host, lambda: _first(place, python, _THERE))
    known = sum(_packed(tree) for tree in host.home_path.glob(".local/share/remora/agent/*/images/farms/*"))
    known += sum(path.stat().st_size for path in place.state.glob("*/bundles/*.gz"))
    print(first, again, backend, known, file=sys.stderr)
    return [
        Figure("bytes to a bare host for a first cell / its files, packed by tar and zlib", (first / known,), 1.1, is_ratio=True),
        Figure("bytes for the first cell of a second kernel / of the first", (again / first,), 0.01, is_ratio=True),
        Figure("bytes for the first cell with a new backend / of the first", (backend / first,), 0.01, is_ratio=True),
    ]


def _carried(host: Host, work: Callable[[], object]) -> int:
    """Return the bytes that went over the link meanwhile, both ways."""
    before = host.link.carried()
    work()
    after = host.link.carried()
    return int(after.up + after.down - before.up - before.down)


class _Counted:
    """A file that counts what is written to it, compressed."""

    def __init__(self) -> None:
        self._packing, self.size = zlib.compressobj(6), 0

    def write(self, data: bytes) -> int:
        """Count it."""
        self.size += len(self._packing.compress(data))
        return len(data)

    def end(self) -> int:
        """Return the size of all."""
        return self.size + len(self._packing.flush())


def _packed(tree: Path) -> int:
    counted = _Counted()
    with tarfile.open(fileobj=counted, mode="w|") as archive:
        archive.add(tree, arcname=".")
    return counted.end()


# ---- times


def _first(place: Place, python: str, code: str) -> float:
    """Return the seconds that the first cell of a new kernel takes."""
    with place.kernel("remora", python) as notebook:
        return notebook.run(code)


def _first_cells(host: Host, place: Place, python: str) -> list[Figure]:
    figures = []
    with place.kernel("remora", python) as other:
        other.run(_THERE)  # so that backend and link are there
        for delay in (50, 150):
            host.link.shape(delay_ms=delay)
            limit = 4 * delay / 1000 + 0.5
            samples = tuple(_first(place, python, _THERE) for _ in range(_FIRST))
            print(delay, samples, file=sys.stderr)
            name = f"first cell of a new kernel at {delay} ms / four round trips and 0.5 s"
            figures.append(Figure(name, tuple(sample / limit for sample in samples), 1.0, is_ratio=True))
        here = tuple(_first(place, python, _PASS) for _ in range(_FIRST))
    return [*figures, Figure("the same on this machine", here)]


def _warm_cells(host: Host, place: Place, python: str) -> list[Figure]:
    figures = []
    with place.kernel("remora", python) as notebook:
        for code in (_PASS, _THERE) * 5:
            notebook.run(code)
        for delay, loss in _LINKS:
            host.link.shape(delay_ms=delay, loss=loss)
            trip = _trip(host)
            beyond = [notebook.run(_THERE) - notebook.run(_PASS) for _ in range(_WARM)]
            name = f"warm %%remote pass at {delay} ms{' with 1 % loss' if loss else ''}, beyond here and a round trip"
            figures.append(Figure(name, tuple(sample - trip for sample in beyond), 0.005))
            print(name, median(figures[-1].samples), min(figures[-1].samples), max(figures[-1].samples), file=sys.stderr)
    return figures


def _trip(host: Host) -> float:
    """Return the seconds of a round trip over the link as it is: of connecting to the SSH server, which needs one."""
    samples = []
    for _ in range(9):
        began = time.perf_counter()
        with socket.create_connection((host.link.far, 22)):
            samples.append(time.perf_counter() - began)
    return median(samples)


def _beside_bulk(host: Host, place: Place, python: str) -> list[Figure]:
    host.link.shape(delay_ms=50, rate_mbit=100)
    limit = 2 * 0.05 + 0.1
    figures = []
    for way, code in (("to", _UP), ("from", _DOWN)):
        folder = place.state.parent / f"bulk-{way}"
        folder.mkdir()
        with place.kernel("remora", python) as ticking, place.kernel("remora", python, folder) as bulk:
            bulk.run(_UP)
            if way == "to":
                with open(folder / "up.bin", "wb") as file:
                    for _ in range(1 << 6):
                        file.write(os.urandom(1 << 24))
            late = tuple(_lateness(host, ticking, lambda bulk=bulk, code=code: bulk.start(code)))
            print(way, late, file=sys.stderr)
            name = f"a print while 1 GiB moves {way} the machine / two round trips and 100 ms"
            figures.append(Figure(name, tuple(each / limit for each in late), 1.0, is_ratio=True))
        place.stop()
    return figures


def _lateness(host: Host, notebook: Notebook, begin: Callable[[], None]) -> Iterator[float]:
    """Yield how late lines come that say when they were printed, while something else goes over the link."""
    late: list[float] = []
    began: list[int] = []

    def seen(text: str) -> None:
        for line in text.split():
            with contextlib.suppress(ValueError):
                if not began:
                    began.append(_now(host))
                    begin()
                elif _now(host) - began[0] > 20_000_000:
                    late.append(time.time() - float(line))

    notebook.watch(_TICKS, seen, lambda: len(late) >= _PRINTS)
    yield from late


def _now(host: Host) -> int:
    carried = host.link.carried()
    return int(carried.up + carried.down)
