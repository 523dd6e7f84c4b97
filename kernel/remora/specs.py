"""From options to what they ask for: the recipe of an image, and the spec of a sandbox.

Law: the one place where a SandboxSpec is made. Looks at this process (environment, folder, files that options name) and starts
nothing.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from . import giving, images
from .errors import InputError, OptionError
from .images import Image
from .images.steps import Part, Pip
from .options import CellOptions, build
from .resources import SandboxSpec
from .wire import Fields

_PYTHONS = tuple(f"3.{minor}" for minor in range(10, 16))
"""Versions that a PEP 723 block may ask for, if it is not the kernel's own."""


def _here() -> str:
    """Return this process's folder. Raises InputError if somebody has removed it."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        text = "the notebook's folder is not there any more; make it again and change into it (%cd), or restart the kernel"
        raise InputError(text, reason="no-folder") from None


def spec(
    options: CellOptions, image: Fields, folder: str | None = None, environment: Mapping[str, str] | None = None
) -> SandboxSpec:
    """Return how a sandbox for these options is made with an image; in this process's folder, unless another one is given."""
    variables = images.carried_environment() | dict(environment or {}) | dict(options.environment)
    return SandboxSpec(
        image=image,
        resources=options.resources,
        folder=_here() if folder is None else folder,
        files=options.files,
        on=options.on,
        jail=options.jail,
        home=os.path.expanduser("~"),
        environment=tuple(variables.items()),
        secrets=tuple(map(giving.absolute, options.secrets)),
        idle=options.idle,
    )


def recipe(options: CellOptions, mirror: Image) -> Image:
    """Return the image that options ask for; `mirror` is the base when they name none.

    Raises InputError for a requirements file that cannot be read.
    """
    image = mirror
    if options.image is not None:
        image = options.image if isinstance(options.image, Image) else Image.from_name(options.image)
        if options.python is not None:
            raise OptionError("image= and python= both say what to begin with; give one of them")
    elif options.python is not None:
        image = Image.python(options.python)
    image = image.apt_install(list(options.apt))
    for file in options.requirements:
        image = image.pip_install_from_requirements(os.path.abspath(file))
    return image.pip_install([_whole(word) for word in options.pip])


def _whole(requirement: str) -> str:
    """Return a requirement that is a path of this machine as a path that is one from everywhere."""
    return os.path.abspath(os.path.expanduser(requirement)) if requirement.startswith((".", "/", "~")) else requirement


def grown(image: Image, wanted: Image) -> Image:
    """Return an image with what another one has more, as steps on top; the other one if that begins with something else."""
    if image.base != wanted.base:
        return wanted
    have = {word for step in image.steps if isinstance(step, Pip) for word in step.requirements}
    new: list[Part] = []
    for step in wanted.steps:
        if isinstance(step, Pip) and not step.force:
            missing = tuple(word for word in step.requirements if word not in have)
            new += [replace(step, requirements=missing)] if missing else []
        elif step not in image.steps:
            new.append(step)
    return image.with_steps(new)


def with_script(given: CellOptions, script: str | None) -> CellOptions:
    """Return the options of a cell with those of its PEP 723 block below them; packages of both count.

    The block's `dependencies` are pip=; its `requires-python` is python= where the kernel's own Python is none of these; a table
    `[tool.remora]` holds options by name. Raises OptionError for a block that is malformed.
    """
    if script is None:
        return given
    try:
        block = tomllib.loads(script)
        values: dict[str, Any] = dict(block.get("tool", {}).get("remora", {}))
        needed, wanted = str(block.get("requires-python", "")), list(block.get("dependencies", ()))
    except (tomllib.TOMLDecodeError, AttributeError, TypeError, ValueError) as error:
        raise OptionError(f"the cell's block `# /// script` cannot be read: {error}") from error
    packages = [*wanted, *(given.pip if "pip" in given.given else ())]
    lower = build(
        values | ({"pip": packages} if packages else {}) | ({"python": version} if (version := _python(needed)) else {})
    )
    upper = given.without("pip") if packages else given
    return upper.over(lower)


def _python(needed: str) -> str | None:
    """Return the version of Python to take for a `requires-python`; None for the kernel's own."""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        versions = SpecifierSet(needed)
    except InvalidSpecifier as error:
        raise OptionError(f"requires-python = {needed!r} is not understood; write it like >=3.11") from error
    own = images.Mirror.here().version
    if own in versions:
        return None
    fitting = [version for version in _PYTHONS if version in versions]
    if not fitting:
        raise OptionError(f"requires-python = {needed!r} is met by no Python that sandboxes can have: {', '.join(_PYTHONS)}")
    return fitting[-1]
