"""Child processes of user code: forks, pools, workers."""


def test_pool_of_forked_workers(guest):
    """A multiprocessing pool works, and what its workers print reaches the cell."""
    code = """
import multiprocessing as mp
def work(x):
    print('worker', x, flush=True)
    return x * x
with mp.get_context('fork').Pool(2) as pool:
    squares = pool.map(work, range(4))
squares
"""
    ended = guest.run(code, sync=False)
    assert ended.plain() == "[0, 1, 4, 9]"
    assert sorted(ended.text().splitlines()) == [f"worker {i}" for i in range(4)]
    assert guest.run("1").plain() == "1"


def test_process_that_displays(guest):
    """A display in a forked child shows its text."""
    ended = guest.run(
        "import multiprocessing as mp\n"
        "p = mp.get_context('fork').Process(target=display, args=('seen',))\np.start(); p.join()\n"
        "p.exitcode"
    )
    assert ended.text() == "'seen'\n" and ended.plain() == "0"


def test_forked_child_that_runs_on_ends_with_its_cell(guest):
    """A child that user code forks and forgets does not become a second guest."""
    code = (
        "import os\npid = os.fork()\nprint('child' if pid == 0 else 'parent')\n"
        "if pid: status = os.waitpid(pid, 0)[1]\nstatus if pid else None"
    )
    ended = guest.run(code, sync=False)
    assert ended.text().count("child") == ended.text().count("parent") == 1 and ended.plain() == "0"
    assert guest.run("1").plain() == "1"


def test_forked_child_that_fails_says_so(guest):
    """An exception in a forked process appears on stderr, and its exit code is that of any process."""
    code = (
        "import multiprocessing as mp\ndef bad(): raise ValueError('in the child')\n"
        "p = mp.get_context('fork').Process(target=bad)\np.start(); p.join()\np.exitcode"
    )
    ended = guest.run(code, sync=False)
    assert ended.plain() == "1" and "in the child" in ended.text("stderr")


def test_spawned_workers(guest):
    """Processes that start a Python of their own work with functions of a module."""
    code = "import multiprocessing as mp, math\nwith mp.get_context('spawn').Pool(1) as pool: r = pool.map(math.sqrt, [4, 9])\nr"
    assert guest.run(code, sync=False).plain() == "[2.0, 3.0]"


def test_joblib_workers(guest):
    """Joblib's processes run functions of the notebook."""
    code = (
        "from joblib import Parallel, delayed\ndef double(x): return 2 * x\n"
        "Parallel(n_jobs=2)(delayed(double)(i) for i in range(4))"
    )
    assert guest.run(code, sync=False).plain() == "[0, 2, 4, 6]"


def test_process_pool_executor(guest):
    """concurrent.futures' processes do."""
    code = "from concurrent.futures import ProcessPoolExecutor\nimport multiprocessing as mp\ndef cube(x): return x ** 3\n"
    code += "with ProcessPoolExecutor(2, mp_context=mp.get_context('fork')) as pool: r = list(pool.map(cube, range(3)))\nr"
    assert guest.run(code, sync=False).plain() == "[0, 1, 8]"


def test_async_child_process(guest):
    """Asyncio's child processes run on the loop of the guest."""
    code = (
        "import asyncio\n"
        "p = await asyncio.create_subprocess_exec('echo', 'hi', stdout=asyncio.subprocess.PIPE)\n"
        "(await p.communicate())[0]"
    )
    assert guest.run(code).plain() == "b'hi\\n'"


def test_children_do_not_hold_the_socket(guest):
    """A process that outlives the guest's work does not see the supervisor's socket."""
    code = (
        "import subprocess, sys\n"
        'code = \'import os; print(os.environ.get("REMORA_GUEST_FD"), os.listdir("/proc/self/fd"))\'\n'
        "done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, close_fds=False)\n"
        "print(done.stdout)"
    )
    assert guest.run(code).text().startswith("None ['0', '1', '2', '3']")


def test_late_output_of_a_child_belongs_to_the_latest_run(guest):
    """What a child writes after its cell has ended is not lost."""
    run = guest.cell("import subprocess\np = subprocess.Popen('sleep 0.2; echo late', shell=True)")
    guest.finish(run)
    emit = guest.receive()
    assert emit.run == run and emit.content["content"]["text"] == "late\n"
