"""A made-up torch for tests: a small package of that name which answers as torch documents the few calls that are used.

Law: it proves how tensors travel, nothing about torch. Its devices are the nodes /dev/acme0 and so on, or what a test says.
"""

from __future__ import annotations

from pathlib import Path

TORCH = '''
"""Stands for torch in a test."""
import os

__version__ = "2.9.0"
DEVICES = {f"cuda:{n}" for n in range(sum(name.startswith("acme") for name in os.listdir("/dev")))}

class device:
    def __init__(self, name):
        self.name, self.type = name, name.partition(":")[0]
    def __str__(self):
        return self.name

class Tensor:
    def __init__(self, data, where="cpu", requires_grad=False):
        self.data_, self.device, self.requires_grad = list(data), device(where), requires_grad
    __hash__ = object.__hash__
    def __eq__(self, other):
        return Tensor([a == b for a, b in zip(self.data_, other.data_)])
    def __bool__(self):
        raise RuntimeError("Boolean value of Tensor with more than one value is ambiguous")
    def detach(self):
        return Tensor(self.data_, str(self.device))
    def cpu(self):
        return self.to("cpu")
    def to(self, where):
        if where == "cuda" and any(name.startswith("cuda:") for name in DEVICES):
            where = sorted(DEVICES)[0]
        if where == "meta" or where != "cpu" and where not in DEVICES:
            raise RuntimeError("No CUDA GPUs are available")
        return self if where == str(self.device) else Tensor(self.data_, where, self.requires_grad)
    def requires_grad_(self, requires_grad=True):
        self.requires_grad = requires_grad
        return self
    @property
    def data(self):
        return self.detach()
    def __reduce_ex__(self, protocol):
        assert str(self.device) in ("cpu", "meta"), "device memory does not pickle"
        return _rebuild_tensor, (self.data_, str(self.device), self.requires_grad)

def _rebuild_tensor(data, where, requires_grad):
    return Tensor(data, where, requires_grad)

from . import nn
'''
PARAMETER = '''
"""Stands for torch.nn.parameter in a test."""
from .. import Tensor

class Parameter(Tensor):
    def __init__(self, data, requires_grad=True):
        super().__init__(data.data_, str(data.device), requires_grad)
    def __reduce_ex__(self, protocol):
        return Parameter, (self.data, self.requires_grad)
'''


def write(folder: Path) -> None:
    """Write the package into a folder."""
    (folder / "torch" / "nn").mkdir(parents=True)
    (folder / "torch" / "__init__.py").write_text(TORCH)
    (folder / "torch" / "nn" / "__init__.py").write_text("from .parameter import Parameter\n")
    (folder / "torch" / "nn" / "parameter.py").write_text(PARAMETER)
