"""Archives: what they hold arrives, and each way of meaning harm is refused with its own reason."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import lzma
import stat
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from remora.errors import StoreRefused
from remora_provisioner.images.store import Store
from remora_provisioner.images.tree import Entry, File, Folder, Gone, Link
from remora_provisioner.images.unpack import tar, wheel


def sha(data: bytes) -> str:
    """Return the digest of some bytes."""
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return an empty store."""
    return Store(tmp_path / "store")


def member(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, **facts: Any) -> tuple[tarfile.TarInfo, bytes]:
    """Return a member of a tar."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(data)
    for key, value in facts.items():
        setattr(info, key, value)
    return info, data


def pack(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """Return a tar with these members."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def refusal(store: Store, data: bytes, **options: Any) -> str:
    """Return why a tar is refused; the store stays clean."""
    with pytest.raises(StoreRefused) as refused:
        tar(store, io.BytesIO(data), **options)
    assert store.verify() == []
    assert list(store.work.root.iterdir()) == []
    return refused.value.reason


GOOD = pack(
    member("./", kind=tarfile.DIRTYPE),
    member("./d", kind=tarfile.DIRTYPE),
    member("./d/a", b"hello", mode=0o755),
    member("big", b"0123456789" * 200_001),
    member("empty"),
    member("d/link", kind=tarfile.SYMTYPE, linkname="../big"),
    member("hard", kind=tarfile.LNKTYPE, linkname="./d/a"),
    member("n" * 150, b"long"),
    member("\udcff", b"raw"),
)


@pytest.mark.parametrize(
    "compress", [bytes, gzip.compress, lzma.compress, lambda d: gzip.compress(d[:999]) + gzip.compress(d[999:])]
)
def test_a_tar_arrives(store: Store, tmp_path: Path, compress: Any):
    """Plain, gz, xz, several streams in a row; from a file and from a stream."""
    path = tmp_path / "archive"
    path.write_bytes(compress(GOOD))
    tree = tar(store, path)
    assert set(tree.entries) == {
        Folder("d"),
        File("d/a", sha(b"hello"), 5, True),
        File("big", sha(b"0123456789" * 200_001), 2_000_010),
        File("empty", sha(b""), 0),
        Link("d/link", "../big"),
        File("hard", sha(b"hello"), 5, True),
        File("n" * 150, sha(b"long"), 4),
        File("\udcff", sha(b"raw"), 3),
    }
    assert (store.farm(store.save(tree)) / "d/link").read_bytes() == b"0123456789" * 200_001
    assert tar(store, io.BytesIO(path.read_bytes())) == tree


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (member("../x", b"1"), "path-escapes"),
        (member("a/../../x", b"1"), "path-escapes"),
        (member("/etc/passwd", b"1"), "path-escapes"),
        (member("x", kind=tarfile.SYMTYPE, linkname="../y"), "link-escapes"),
        (member("x", kind=tarfile.SYMTYPE, linkname="/y"), "link-escapes"),
        (member("x", kind=tarfile.LNKTYPE, linkname="../y"), "link-escapes"),
        (member("x", kind=tarfile.LNKTYPE, linkname="/etc/passwd"), "link-escapes"),
        (member("x", kind=tarfile.LNKTYPE, linkname="later"), "malformed"),
        (member("x", kind=tarfile.CHRTYPE), "device-node"),
        (member("x", kind=tarfile.BLKTYPE), "device-node"),
        (member("x", kind=tarfile.FIFOTYPE), "device-node"),
        (member("x", b"1", mode=0o4755), "setuid"),
        (member("x", b"1", mode=0o2755), "setuid"),
    ],
)
def test_a_member_that_means_harm_is_refused(store: Store, entry: tuple[tarfile.TarInfo, bytes], reason: str):
    """Wherever it stands in the archive."""
    assert refusal(store, pack(member("before", b"1"), entry, member("after", b"1"))) == reason


def test_writing_through_a_link_is_refused(store: Store):
    """The second member would land where the first one points."""
    assert refusal(store, pack(member("a", kind=tarfile.SYMTYPE, linkname="b"), member("a/x", b"1"))) == "path-escapes"


@pytest.mark.parametrize("damage", [b"", b"garbage" * 100, GOOD[:2_000], gzip.compress(GOOD)[:-200], lzma.compress(GOOD)[:500]])
def test_a_damaged_tar_is_malformed(store: Store, damage: bytes):
    """Empty, no archive at all, or cut off."""
    assert refusal(store, damage) == "malformed"


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress])
def test_a_bomb_is_too_large(store: Store, compress: Any):
    """What comes out of all proportion to what went in is not unpacked to its end."""
    assert refusal(store, compress(pack(member("zeros", bytes(40 << 20))))) == "too-large"
    assert store.size() == 0


def test_more_than_the_limit_is_too_large(store: Store):
    """Also when it is not compressed at all."""
    assert refusal(store, GOOD, limit=1 << 20) == "too-large"


def test_a_sparse_file_is_no_way_around_the_limits(store: Store):
    """A terabyte of holes takes no room in an archive."""
    info, data = member("x", b"1", kind=tarfile.GNUTYPE_SPARSE)
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[386:410] = b"%011o\0%011o\0" % (0, 1)
    header[483:495] = b"%011o\0" % (7 << 30)
    header[148:156] = b"%06o\0 " % (256 + sum(header[:148]) + sum(header[156:]))
    assert refusal(store, bytes(header) + data.ljust(512, b"\0") + bytes(1024)) == "too-large"


def test_a_header_that_wants_all_memory_is_too_large(store: Store):
    """A pax header may claim any length."""
    info, _ = member("x", kind=tarfile.XHDTYPE)
    info.size = 5 << 30
    assert refusal(store, info.tobuf(tarfile.USTAR_FORMAT) + bytes(10_000)) == "too-large"


def test_a_layer_of_a_container_image(store: Store):
    """Whiteouts become Gone, setuid bits are dropped, absolute links are taken; without `system` nothing is special."""
    data = pack(
        member("etc/.wh.gone"),
        member("opt/.wh..wh..opq"),
        member("opt/new", b"1"),
        member(".wh.again"),
        member("again", b"2"),
        member("su", b"3", mode=0o4755),
        member("bin", kind=tarfile.SYMTYPE, linkname="/usr/bin"),
    )
    expected: tuple[Entry, ...] = (
        File("again", sha(b"2"), 1),
        Link("bin", "/usr/bin"),
        Gone("etc/gone"),
        Gone("opt"),
        Folder("opt"),
        File("opt/new", sha(b"1"), 1),
        File("su", sha(b"3"), 1, True),
    )
    assert tar(store, io.BytesIO(data), system=True).entries == expected
    assert tar(store, io.BytesIO(pack(member("a/.wh.b")))).entries == (File("a/.wh.b", sha(b""), 0),)


@pytest.mark.parametrize("name", [".wh...", ".wh..", ".wh.", ".wh..wh..opq", "a/.wh..."])
def test_a_whiteout_leads_nowhere_else(store: Store, name: str):
    """Neither up nor to the top itself."""
    assert refusal(store, pack(member(name)), system=True) == "path-escapes"


def zipped(path: Path, files: dict[str, bytes], record: str | None = None, mode: int = 0o644) -> Path:
    """Write a wheel with these files; its RECORD is right unless given."""
    if record is None:
        hashes = {
            name: base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode() for name, data in files.items()
        }
        record = "".join(f'"{name}",sha256={value},{len(files[name])}\n' for name, value in hashes.items())
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {**files, "p-1.dist-info/RECORD": record.encode()}.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (mode if stat.S_IFMT(mode) else stat.S_IFREG | mode) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, data)
    return path


def wheel_refusal(store: Store, path: Path, sha256: str | None = None) -> str:
    """Return why a wheel is refused; the store stays clean."""
    with pytest.raises(StoreRefused) as refused:
        wheel(store, path, sha256)
    assert store.verify() == []
    assert list(store.work.root.iterdir()) == []
    return refused.value.reason


FILES = {"p/__init__.py": b"", "p/a,b.py": b"x = 1\n", "p-1.dist-info/METADATA": b"Name: p\n"}


def test_a_wheel_arrives(store: Store, tmp_path: Path):
    """Every file as its RECORD says, RECORD included; the archive's own hash is checked."""
    path = zipped(tmp_path / "p.whl", FILES, mode=0o755)
    tree = wheel(store, path, sha(path.read_bytes()))
    assert {f.path: (f.digest, f.executable) for f in tree.files() if f.path in FILES} == {
        n: (sha(d), True) for n, d in FILES.items()
    }
    assert "p-1.dist-info/RECORD" in {f.path for f in tree.files()}
    assert store.save(tree) == store.save(wheel(store, path))
    assert wheel_refusal(store, path, "a" * 64) == "wrong-digest"


def test_content_that_is_not_as_record_says_is_refused(store: Store, tmp_path: Path):
    """Another content, one that RECORD does not know, one that is missing, no RECORD at all."""
    right = base64.urlsafe_b64encode(hashlib.sha256(b"1").digest()).decode().rstrip("=")
    assert wheel_refusal(store, zipped(tmp_path / "a", {"p": b"2"}, f"p,sha256={right},1\n")) == "wrong-digest"
    assert wheel_refusal(store, zipped(tmp_path / "b", {"p": b"1", "q": b"1"}, f"p,sha256={right},1\n")) == "wrong-digest"
    assert wheel_refusal(store, zipped(tmp_path / "c", {"p": b"1"}, "p,md5=x,1\n")) == "wrong-digest"
    assert wheel_refusal(store, zipped(tmp_path / "d", {}, f"p,sha256={right},1\n")) == "malformed"
    with zipfile.ZipFile(tmp_path / "e", "w") as archive:
        archive.writestr("p", b"1")
    assert wheel_refusal(store, tmp_path / "e") == "malformed"


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x"])
def test_a_wheel_that_leads_out_is_refused(store: Store, tmp_path: Path, name: str):
    """By the name as it stands in the archive."""
    assert wheel_refusal(store, zipped(tmp_path / "w", {name: b"1"})) == "path-escapes"


@pytest.mark.parametrize(
    ("mode", "reason"), [(stat.S_IFLNK | 0o777, "link-escapes"), (stat.S_IFIFO | 0o644, "device-node"), (0o4755, "setuid")]
)
def test_a_wheel_holds_only_plain_files(store: Store, tmp_path: Path, mode: int, reason: str):
    """No links, no devices, no setuid."""
    assert wheel_refusal(store, zipped(tmp_path / "w", {"p": b"1"}, mode=mode)) == reason


def test_a_damaged_wheel_and_a_bomb(store: Store, tmp_path: Path):
    """Cut off, no zip at all, flipped bits, and forty megabytes of nothing."""
    data = bytearray(zipped(tmp_path / "w", {"p": b"content" * 1000}).read_bytes())
    for name, damaged in {"a": data[:-30], "b": b"garbage", "c": data[:40] + bytes([data[40] ^ 255]) + data[41:]}.items():
        (tmp_path / name).write_bytes(damaged)
        assert wheel_refusal(store, tmp_path / name) == "malformed"
    assert wheel_refusal(store, zipped(tmp_path / "d", {"zeros": bytes(40 << 20)})) == "too-large"
