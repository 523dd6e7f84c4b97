"""A machine that is reached by SSH, beside the tools that everybody has: a folder beside `rsync -a`, a variable beside `scp`.

Law: both go over the same link to the same host, by turns, theirs with ssh as it is by default. Files are read from one folder,
whose pages are in memory, and end in one file system of the host. Without root there is no host, and nothing is measured.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import time
from pathlib import Path

from figures import Figure, ratio
from given import ROOT, box, environment, fill, hosts_can_be
from place import Notebook, Place
from provisioner.hosts import Host

_VARIABLE = 1 << 30
_ROUNDS, _UNCHANGED = 5, 3
_SHAPED = {"rate_mbit": 1000.0}
_PREPARE = f"""
import numpy
from remora.client import client
from remora.wire import Ask, ListAll
def exchange():
    here = client()
    (box,) = here.run(here.request(ListAll())).result["sandboxes"]
    here.run(here.request(Ask("files", "exchange", {{"sandbox": box["id"], "whole": True}})))
value = numpy.random.default_rng(0).random({_VARIABLE} // 8)
"""
_CHANGE = "value[0] += 1"
_READ = f"%%remote on=box\nassert value.nbytes == {_VARIABLE}"


def measure(place: Place) -> list[Figure]:
    """Measure a folder and a variable, on one host."""
    if not hosts_can_be():
        return []
    python = environment(place, "-e", f"{ROOT}[ssh]", "numpy")
    with box(place, home="size=8g", programs=["rsync"]) as host, place.kernel("remora", python) as notebook:
        notebook.run("%%remote on=box\npass")
        notebook.run(_PREPARE)
        return [*_folder(place, host, notebook), *_variable(place, host, notebook)]


# ---- a folder


def _folder(place: Place, host: Host, notebook: Notebook) -> list[Figure]:
    source = place.folder.parent / "source"
    fill(source)
    (place.folder / "readme").write_text("what stays here, so that the folder is known again")
    data = place.folder / "data"
    first, first_theirs, again, again_theirs = [], [], [], []
    for _ in range(_ROUNDS):
        for path in source.rglob("*.bin"):
            path.touch()  # so that nothing of them is known, as the first time
        source.rename(data)
        first.append([notebook.run("exchange()")])
        first_theirs.append([_rsync(data, host)])
        for _ in range(_UNCHANGED):
            again.append([notebook.run("exchange()")])
            again_theirs.append([_rsync(data, host)])
        host.do("rm -rf copy")
        data.rename(source)
        notebook.run("exchange()")
    shutil.rmtree(source)
    return [
        Figure("1 GB in 10,000 files to a machine reached by SSH, the first time", _flat(first)),
        Figure("the same unchanged", _flat(again)),
        ratio("1 GB in 10,000 files to a machine, the first time / rsync -a", first, first_theirs, 1.0),
        ratio("the same unchanged / rsync -a", again, again_theirs, 0.5),
    ]


def _rsync(source: Path, host: Host) -> float:
    return _timed("rsync", "-a", f"--rsh=ssh -F {host.config}", f"{source}/", f"{host.name}:copy/")


# ---- a variable


def _variable(place: Place, host: Host, notebook: Notebook) -> list[Figure]:
    file = place.folder.parent / "variable"
    file.write_bytes(random.Random(0).randbytes(1 << 20) * (_VARIABLE >> 20))

    def ours() -> float:
        notebook.run(_CHANGE)
        return notebook.run(_READ)

    def theirs() -> float:
        return _timed("scp", "-q", "-F", str(host.config), str(file), f"{host.name}:copy")

    figures = []
    for words, shape in (("", {}), (" over 1 Gbit/s", _SHAPED)):
        host.link.shape(**shape)
        pairs = [([ours()], [theirs()]) for _ in range(_ROUNDS)]
        mine, others = [a for a, _ in pairs], [b for _, b in pairs]
        figures += [
            Figure(f"a variable of 1 GiB to a machine{words}", _flat(mine)),
            ratio(f"a variable of 1 GiB to a machine{words} / scp of it", mine, others, 1.1),
        ]
    return figures


def _timed(*words: str) -> float:
    began = time.perf_counter()
    subprocess.run(words, check=True)
    return time.perf_counter() - began


def _flat(rounds: list[list[float]]) -> tuple[float, ...]:
    return tuple(sample for each in rounds for sample in each)
