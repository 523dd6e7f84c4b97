"""YAML whose scalars all stay text. Law: the one file of this package that imports PyYAML, itself imported when needed."""

from __future__ import annotations

from typing import Any

import yaml


class _Loader(yaml.BaseLoader):
    """PyYAML's loader that makes nothing but text, lists and dictionaries, without anchors."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("anchors are not taken")
        return super().compose_node(parent, index)


def load(data: bytes) -> Any:
    """Return the values of a text; ValueError if it is no YAML."""
    try:
        return _Loader(data).get_single_data()
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ValueError(f"it is no plain YAML ({' '.join(str(error).split())[:200]})") from None
