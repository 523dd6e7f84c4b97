"""Resources: what can be written is understood exactly, what cannot is refused with an example."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from remora.errors import OptionError
from remora.resources import (
    Gpu,
    Resources,
    SandboxSpec,
    format_bytes,
    format_seconds,
    parse_cpu,
    parse_gpu,
    parse_memory,
    parse_seconds,
)

IMAGE = {"base": {"kind": "mirror", "executable": "/usr/bin/python3", "roots": []}, "steps": []}


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("16GiB", 16 * 2**30),
        ("512MiB", 512 * 2**20),
        (" 1.5 gib ", 3 * 2**29),
        ("20MB", 20_000_000),
        ("1TB", 10**12),
        ("2g", 2**31),
        ("64m", 2**26),
        ("32768K", 2**25),
        ("16777216B", 2**24),
    ],
)
def test_memory(text: str, amount: int) -> None:
    """Decimal and binary units, whatever their case."""
    assert parse_memory(text) == amount


@pytest.mark.parametrize(
    "text", ["", "16", 16, "lots", "-1GiB", "1GiBs", "1,5GiB", "GiB", "1 2 GiB", "\u0661GiB", "0x10MiB", "1e3GiB"]
)
def test_memory_that_is_none(text: Any) -> None:
    """A bare number is refused, since nobody knows its unit; the error shows how to write it."""
    with pytest.raises(OptionError, match="memory=16GiB"):
        parse_memory(text)


@pytest.mark.parametrize("text", ["1KiB", "0GiB", "15MiB"])
def test_too_little_memory(text: str) -> None:
    """Less than a Python process needs is refused now, rather than by an end without output."""
    with pytest.raises(OptionError, match="at least 16MiB"):
        parse_memory(text)


def test_memory_beyond_all_numbers() -> None:
    """A number that is too large for a number is an error of the user's, too."""
    with pytest.raises(OptionError):
        parse_memory("9" * 400 + "GiB")


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (3.2 * 2**30, "3.2 GiB"), (2**50, "1024.0 TiB")]
)
def test_bytes_for_people(count: float, text: str) -> None:
    """Binary units, one decimal."""
    assert format_bytes(count) == text


@settings(max_examples=50)
@given(st.floats(16 * 2**20, 2**45))
def test_printed_memory_can_be_read(count: float) -> None:
    """What is printed is understood again, within its rounding."""
    assert parse_memory(format_bytes(count)) == pytest.approx(count, rel=0.06)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        (90, 90),
        (0.5, 0.5),
        ("90s", 90),
        ("30m", 1800),
        ("30 min", 1800),
        ("1.5h", 5400),
        ("1d", 86400),
        ("250ms", 0.25),
    ],
)
def test_times(text: Any, seconds: float) -> None:
    """Numbers are seconds, letters are units."""
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "0", "0s", "-5s", "5 parsecs", "1h30m", "nan", "inf", "1e3", None])
def test_times_that_are_none(text: Any) -> None:
    """The error names the option that was written."""
    with pytest.raises(OptionError, match=r"idle=.*idle=30m"):
        parse_seconds(text, "idle")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (0.44, "0.4 s"),
        (12.3, "12 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 00 min"),
        (7500, "2 h 05 min"),
    ],
)
def test_times_for_people(seconds: float, text: str) -> None:
    """Short times to a tenth, long ones in two units."""
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(("text", "cores"), [("4", 4), ("0.5", 0.5), (2, 2), ("4096", 4096)])
def test_cores(text: Any, cores: float) -> None:
    """Whole and broken numbers."""
    assert parse_cpu(text) == cores


@pytest.mark.parametrize("text", ["", "0", "-1", "many", "nan", "inf", "5000"])
def test_cores_that_are_none(text: str) -> None:
    """The error shows how to write it."""
    with pytest.raises(OptionError, match="cpu=4"):
        parse_cpu(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A100", (Gpu("A100"),)),
        ("A100:2", (Gpu("A100", 2),)),
        ("A100, H100", (Gpu("A100"), Gpu("H100"))),
        ("H100!", (Gpu("H100", exact=True),)),
        ("H100!:8", (Gpu("H100", 8, True),)),
        ("any", (Gpu("any"),)),
        (["L4", "T4:2"], (Gpu("L4"), Gpu("T4", 2))),
        ("A100-80GB", (Gpu("A100-80GB"),)),
    ],
)
def test_devices(text: Any, found: tuple[Gpu, ...]) -> None:
    """In order of preference, with number and exactness; printed as written."""
    assert parse_gpu(text) == found
    assert parse_gpu(",".join(map(str, found))) == found


@pytest.mark.parametrize(
    "text", ["", ",", "A100,", "A100:0", "A100:-1", "A100:x", "100", "A 100", "A100!!", "A100:2!", [], ["A100", ""]]
)
def test_devices_that_are_none(text: Any) -> None:
    """The error shows every form."""
    with pytest.raises(OptionError, match="gpu=any"):
        parse_gpu(text)


_gpus = st.lists(
    st.builds(Gpu, st.from_regex(r"[A-Za-z][A-Za-z0-9_.-]{0,8}", fullmatch=True), st.integers(1, 16), st.booleans()), max_size=3
)
_resources = st.builds(Resources, _gpus.map(tuple), st.none() | st.floats(0.1, 64), st.none() | st.integers(2**24, 2**40))
_specs = st.builds(
    SandboxSpec,
    image=st.just(IMAGE),
    resources=_resources,
    folder=st.none() | st.text(max_size=20),
    files=st.sampled_from(["rw", "ro", "none"]),
    jail=st.none() | st.just("process"),
    environment=st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), max_size=3).map(tuple),
    idle=st.none() | st.floats(0.1, 1e6),
)


@settings(max_examples=50)
@given(_specs)
def test_a_spec_is_the_same_on_the_other_side(spec: SandboxSpec) -> None:
    """Through JSON and back nothing of a spec changes, its identity least of all."""
    back = SandboxSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert back == spec
    assert back.identity == spec.identity


def test_what_another_version_added_is_passed_over() -> None:
    """A spec with a field more, or with fields less, is understood."""
    spec = SandboxSpec.from_dict({"image": IMAGE, "colour": "red"})
    assert spec == SandboxSpec(IMAGE)


@pytest.mark.parametrize("files", ["", "yes", "RW", "w"])
def test_files_is_a_closed_set(files: str) -> None:
    """Anything but rw, ro and none is refused when the value is made."""
    with pytest.raises(OptionError, match="rw, ro or none"):
        SandboxSpec(IMAGE, files=files)


def test_machine_image_and_devices_alone_identify() -> None:
    """Every other option may change from cell to cell in the same sandbox."""
    spec = SandboxSpec(IMAGE, Resources(cpu=1.0))
    same = SandboxSpec(IMAGE, Resources(cpu=4.0, memory=2**30), folder="/data", files="ro", idle=5.0, environment=(("A", "b"),))
    assert same.identity == spec.identity
    for other in (
        SandboxSpec(IMAGE, on="gpubox"),
        SandboxSpec(IMAGE | {"base": {"kind": "mirror", "executable": "/opt/python"}}),
        SandboxSpec(IMAGE, Resources(gpu=parse_gpu("A100"))),
    ):
        assert other.identity != spec.identity


def test_the_order_of_an_images_facts_does_not_matter() -> None:
    """Identity is of values, not of how a dictionary was written."""
    assert SandboxSpec(dict(reversed(IMAGE.items()))).identity == SandboxSpec(IMAGE).identity
