"""Bases that are systems of their own: a Debian, and images of a registry; sandboxes see nothing of the machine's system."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from provisioner.images.containers import Registry, layer, needed, python_layer
from provisioner.images.systems import look
from provisioner.images.test_build import left, pip, quiet
from provisioner.images.wheels_by_hand import make_wheel
from remora.errors import ImageFailed, StoreRefused
from remora.images import Image
from remora_provisioner.images.build.interpreters import find_python, follow, has_musl
from remora_provisioner.images.build.run import build
from remora_provisioner.images.records import Records
from remora_provisioner.images.store import Store
from remora_provisioner.images.tree import File, Link, Tree

from provisioner import needs

pytestmark = needs.namespaces
buildah = pytest.mark.skipif(shutil.which("buildah") is None, reason="needs Debian: the package buildah")
A = "a" * 64


@needed
def test_an_image_of_a_registry(root: Path, tmp_path: Path, registry: Registry) -> None:
    """Its layers lie over one another, its variables and folder count, steps come on top, and what is known is not read again."""
    upper = layer({"etc/mine": b"upper", "etc/.wh.gone": b"", "usr/lib/os-release": b"ID=own\n"})
    lower = layer({"etc/mine": b"lower", "etc/gone": b"lower"})
    config = {"Env": ["PATH=/usr/local/bin:/bin", "WORD=a b"], "WorkingDir": "/srv"}
    reference = registry.push(tmp_path / "image", "own/image:1", [python_layer(), lower, upper], config)
    wheels = tmp_path / "wheels"
    make_wheel(wheels, "lower", "1.1", {"lower.py": "NAME = 'lower'\n"})
    image = pip(Image.from_registry(reference), wheels, "lower").run_commands(
        'echo "$WORD $(cat /etc/mine)" > said; cat /etc/gone || echo gone >> said',
        'python3 -c "import lower; print(lower.NAME)" >> said',
    )
    built = build(image, root, quiet)
    assert (built.root, built.workdir, built.env) == (True, "/srv", (("WORD", "a b"),))
    command = f"cat /srv/said; {built.inside} -c 'import os; print(sorted(os.listdir(\"/usr\")))'"
    assert look(built, root, tmp_path, command).splitlines() == ["a b upper", "gone", "lower", "['lib', 'local']"]
    assert (left(root), Store(root).verify()) == ([], [])
    registry.close()
    assert build(image, root, quiet) == built  # without the registry


@needed
def test_layers_are_shared_between_images(root: Path, tmp_path: Path, registry: Registry) -> None:
    """A layer that another image brought is not taken in a second time."""
    python = python_layer()
    for number in (1, 2):
        own = layer({"etc/number": str(number).encode()})
        build(Image.from_registry(registry.push(tmp_path / f"{number}", f"own/image:{number}", [python, own], {})), root, quiet)
    assert len([record for record in Records(root).all() if record.step["kind"] == "layer"]) == 3


@needed
def test_images_that_will_not_do(root: Path, tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is not there, one without Python, one with musl, one that means harm, a secret that is not set, no skopeo."""
    python = b"\x7fELF"
    programs = {"usr/bin/python3.11": python, "usr/bin/python3": "python3.11"}
    push = registry.push
    none = push(tmp_path / "none", "no/python", [layer({"bin/sh": b""})], {})
    musl = push(tmp_path / "musl", "on/musl", [layer({**programs, "lib/ld-musl-x86_64.so.1": b""})], {})
    harm = push(tmp_path / "harm", "means/harm", [layer({"etc/../../out": b""})], {})
    wrong = {f"{registry.host}/not/there": "manifest unknown", none: "has no python3", musl: "built on musl"}
    for reference, words in wrong.items():
        with pytest.raises(ImageFailed, match=words):
            build(Image.from_registry(reference), root, quiet)
    with pytest.raises(StoreRefused) as refused:
        build(Image.from_registry(harm), root, quiet)
    assert refused.value.reason == "path-escapes"
    with pytest.raises(ImageFailed, match="REGISTRY_USERNAME and REGISTRY_PASSWORD"):
        build(Image.from_registry(none, secret="mine"), root, quiet)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ImageFailed, match="apt-get install skopeo"):
        build(Image.from_registry(none), root, quiet)
    assert (left(root), Store(root).verify()) == ([], [])


@needed
@buildah
def test_what_a_dockerfile_makes(root: Path, tmp_path: Path, registry: Registry) -> None:
    """Its base is fetched, files are copied from the context, commands run, variables count; the context stays as it is."""
    reference = registry.push(tmp_path / "image", "own/image:1", [python_layer()], {"Env": ["PATH=/usr/local/bin:/bin"]})
    context = tmp_path / "context"
    context.mkdir()
    (context / "one").write_text("1\n")
    lines = [f"FROM {reference}", "ENV WORD='a b'", "WORKDIR /srv/app", "COPY one two ./", 'RUN echo "$WORD" >> one && cat one']
    (context / "Dockerfile").write_text("\n".join(lines).replace("one two", "one"))
    image = Image.from_dockerfile(context / "Dockerfile")
    built = build(image, root, quiet)
    assert (built.root, built.workdir, built.env) == (True, "/srv/app", (("WORD", "a b"),))
    told = look(built, root, tmp_path, f"cat /srv/app/one; {built.inside} -c 'print(6 * 7)'")
    assert told.splitlines() == ["1", "a b", "42"]
    assert (context / "one").read_text() == "1\n"
    assert build(image.env({"A": "1"}), root, quiet).layers == built.layers
    (context / "Dockerfile").write_text("\n".join(lines))
    with pytest.raises(ImageFailed, match=r"correct the Dockerfile(.|\n)*two"):
        build(Image.from_dockerfile(context / "Dockerfile"), root, quiet)
    assert (left(root), Store(root).verify()) == ([], [])


@needed
def test_a_registry_has_no_packages_of_debian(root: Path, tmp_path: Path, registry: Registry) -> None:
    """The step apt on a system that is no Debian says so in one line, and what to take."""
    image = Image.from_registry(registry.push(tmp_path / "image", "own/image:1", [python_layer()], {}))
    with pytest.raises(ImageFailed, match=r"no Debian, there is no apt-get; begin with Image\.debian_slim"):
        build(image.apt_install("hello"), root, quiet)


def test_pythons_are_found_in_trees() -> None:
    """The first on the path counts, links are followed inside, a loop leads nowhere, and a file must be a program."""
    files = [File("opt/bin/python3.12", A, 1, True), File("usr/bin/python3.11", A, 1, True), File("usr/local/bin/python3", A, 1)]
    links = [Link("usr/bin/python3", "python3.11"), Link("bin", "usr/bin"), Link("opt/bin/python3", "/opt/bin/../bin/python3.12")]
    tree = Tree.of([*files, *links], system=True)
    assert find_python(tree) == ("/usr/bin/python3.11", "3.11")
    assert find_python(tree, ["/opt/bin"]) == ("/opt/bin/python3.12", "3.12")
    assert find_python(Tree()) is None and not has_musl(tree)
    assert follow("/a/b", {"a/b": "c", "a/c": "b"}).startswith("/a")
