"""Sync with IPython's real shell: its namespace, its hidden names, its cells' sources."""

from __future__ import annotations

import subprocess
import sys
import textwrap


def _in_a_shell(code: str) -> None:
    """Run code in a fresh process that has an IPython shell `shell` with the namespace `ns`."""
    head = f"""
    import sys; sys.path[:] = {sys.path!r}
    from IPython.core.interactiveshell import InteractiveShell
    from remora.sync import Ledger, analyse, decode, encode, hidden
    shell = InteractiveShell.instance(); ns = shell.user_ns
    """
    text = textwrap.dedent(head) + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_fresh_shell_shows_no_names() -> None:
    """All that IPython puts into the namespace by itself is hidden."""
    _in_a_shell("assert [name for name in ns if not hidden(name)] == []")


def test_functions_of_cells_travel_with_their_source() -> None:
    """A function typed in a cell travels by value, and its source can be shown where it arrives."""
    _in_a_shell("""
    shell.run_cell("k = 3\\ndef f(x):\\n    return x + k")
    out = Ledger().outgoing(analyse("f(1)").reads, ns)
    assert out.encoded.names == ("f", "k") and not out.encoded.failures
    assert b"return x + k" in out.encoded.stream
    """)


def test_the_shell_itself_is_refused() -> None:
    """`ip = get_ipython()` is common in notebooks; the shell stays."""
    _in_a_shell("""
    shell.run_cell("ip = get_ipython()")
    out = Ledger().outgoing(["ip"], ns)
    assert "call get_ipython() inside the remote cell" in str(out.encoded.failures["ip"])
    """)


def test_changes_of_a_cell_are_found() -> None:
    """A cell run by IPython leaves its history entries at home and its results in the account."""
    _in_a_shell("""
    shell.run_cell("a = [1]\\nb = 2")
    ledger = Ledger(); ledger.sent(ledger.outgoing(["a", "b"], ns))
    before = ledger.before(ns, analyse("a.append(c := 5)\\n_ = 3").reads)
    shell.run_cell("a.append(c := 5)\\nc")
    changes = ledger.changes(ns, before)
    assert changes.encoded.names == ("a", "c"), changes.encoded.names
    assert changes.mutated == {"a"} and changes.deletes == ()
    """)
