"""jupyter_kernel_test for kernel `remora`: as any kernel, and once more with every sample sent to a sandbox.

Law: the samples are those of ipykernel's own test, so that a remote cell is held to what a local one does.
"""

from __future__ import annotations

from typing import Any, ClassVar

import jupyter_kernel_test
import pytest
from journeys.driving import Notebook

REMOTE = "%%remote\n"


class _Samples:
    """What is asked of the kernel, wherever the code runs."""

    language_name = "python"
    file_extension = ".py"
    code_hello_world = "print('hello, world')"
    code_stderr = "import sys; print('test', file=sys.stderr)"
    completion_samples: ClassVar[list[Any]] = [{"text": "zi", "matches": {"zip"}}]
    complete_code_samples: ClassVar[list[Any]] = ["1", "print('hello, world')", "def f(x):\n  return x*2\n\n\n"]
    incomplete_code_samples: ClassVar[list[Any]] = ["print('''hello", "def f(x):\n  x*2"]
    invalid_code_samples: ClassVar[list[Any]] = ["import = 7q"]
    code_page_something = "zip?"
    code_generate_error = "raise"
    code_execute_result: ClassVar[list[Any]] = [
        {"code": "1+2+3", "result": "6"},
        {"code": "[n*n for n in range(1, 4)]", "result": "[1, 4, 9]"},
    ]
    code_display_data: ClassVar[list[Any]] = [
        {"code": "from IPython.display import HTML, display; display(HTML('<b>test</b>'))", "mime": "text/html"},
        {"code": "from IPython.display import Math, display; display(Math('\\\\frac{1}{2}'))", "mime": "text/latex"},
    ]
    code_history_pattern = "1?2?3"  # cells of other files may be in the history: none of them is like this
    supported_history_operations = ("tail", "search", "range")
    code_inspect_sample = "zip"
    code_clear_output = "from IPython.display import clear_output; clear_output()"

    @classmethod
    def setUpClass(cls) -> None:
        """Take the file's kernel, which the fixture below hands over."""

    @classmethod
    def tearDownClass(cls) -> None:
        """Leave the kernel to the file's fixture."""

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _kernel(cls, shared: Notebook) -> None:
        cls.km, cls.kc = shared.manager, shared.client


def _there(sample: Any) -> Any:
    """Return the sample as a remote cell: text, or a record whose `code` or `text` is one."""
    if isinstance(sample, str):
        return REMOTE + sample
    return {key: REMOTE + value if key in ("code", "text") else value for key, value in sample.items()}


class TestHere(_Samples, jupyter_kernel_test.KernelTests):
    """Kernel `remora` is a kernel like any other."""


class TestThere(_Samples, jupyter_kernel_test.KernelTests):
    """The same samples, each as a `%%remote` cell."""

    code_hello_world = _there(_Samples.code_hello_world)
    code_stderr = _there(_Samples.code_stderr)
    completion_samples: ClassVar[list[Any]] = [_there(sample) for sample in _Samples.completion_samples]
    complete_code_samples: ClassVar[list[Any]] = [_there(sample) for sample in _Samples.complete_code_samples]
    incomplete_code_samples: ClassVar[list[Any]] = [_there(sample) for sample in _Samples.incomplete_code_samples]
    invalid_code_samples: ClassVar[list[Any]] = [_there(sample) for sample in _Samples.invalid_code_samples]
    code_page_something = _there(_Samples.code_page_something)
    code_generate_error = _there(_Samples.code_generate_error)
    code_execute_result: ClassVar[list[Any]] = [_there(sample) for sample in _Samples.code_execute_result]
    code_display_data: ClassVar[list[Any]] = [_there(sample) for sample in _Samples.code_display_data]
    code_history_pattern = f"{REMOTE}1?2?3"
    code_inspect_sample = _there(_Samples.code_inspect_sample)
    code_clear_output = _there(_Samples.code_clear_output)
