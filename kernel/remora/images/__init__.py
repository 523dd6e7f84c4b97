"""What a sandbox runs in: an image is a recipe, an immutable value. The default is the mirror of the kernel's own environment.

Law: values only; nothing is built here, and nothing but the standard library is imported.
"""

from .mirror import GUEST_NEEDS, Mirror, carried_environment, guest_file
from .recipe import Image

__all__ = ["GUEST_NEEDS", "Image", "Mirror", "carried_environment", "guest_file"]
