"""Images that code inside a sandbox asks for: what of them may be built outside for it.

Law: a build runs on the machine, so it runs nothing and reads nothing that such code could have put there. Packages come from
indexes, as wheels; the Python that resolves them is that of whoever opened the outermost sandbox; commands run in jails anyway.
"""

from __future__ import annotations

import re

from remora.errors import Refused
from remora.images import Image
from remora.images.steps import METADATA, Apt, MirrorBase, NamedBase, Part, Pip, PythonBase, Run, RunFunction, from_dict
from remora.wire import Fields

BUILT_ON = "built_on"
"""In a sandbox's spec: the base to build on, put there for code inside a sandbox, and never taken from anybody."""
ENVIRONMENT = {"UV_NO_BUILD": "1"}
_PLAIN = re.compile(r"\s*[A-Za-z0-9][\w.-]*\s*(\[[^\]@/]*\])?\s*[^@/]*")
"""A requirement that names a package of an index, not where one lies."""
_ADVICE = "publish it from outside, and begin with its name"
_INDEX = re.compile(r"https?://\S+")


def admit(image: Fields, parent: Fields) -> Fields:
    """Return what a spec says of its image, made safe to build for code in a sandbox with the image `parent`. Raises Refused."""
    recipe = Image.from_dict(image)
    for step in recipe.steps:
        if not _is_harmless(step):
            raise Refused(f"the image step {step.kind!r} is not built for code in a sandbox; {_ADVICE}")
    if not isinstance(recipe.base, MirrorBase | NamedBase | PythonBase):
        raise Refused(f"an image on {recipe.base.kind!r} is not built for code in a sandbox; {_ADVICE}")
    return image | {BUILT_ON: parent.get(BUILT_ON, parent["base"])}


def to_build(image: Fields) -> Image:
    """Return the recipe to build by a spec's image: on the base that is to be trusted, where there are two."""
    recipe = Image.from_dict(image)
    if BUILT_ON not in image or not isinstance(recipe.base, MirrorBase) or not recipe.steps:
        return recipe
    base = from_dict(image[BUILT_ON])
    if not isinstance(base, MirrorBase) or base.version != recipe.base.version:
        raise Refused("a sandbox with a Python of its own cannot mirror itself; begin with remora.Image.python(…)")
    return Image(base, recipe.steps)


def _is_harmless(step: Part) -> bool:
    if isinstance(step, Pip):
        places = [step.index_url, *step.extra_index_url]
        plain = all(_PLAIN.fullmatch(requirement) for requirement in step.requirements)
        return plain and not step.find_links and all(not place or _INDEX.fullmatch(place) for place in places)
    return isinstance(step, (Apt, Run, RunFunction, *METADATA))
