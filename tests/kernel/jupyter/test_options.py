"""Options and commands of the magics: every way to write them, what they come to, and what a wrong one says."""

from __future__ import annotations

from contextlib import suppress
from types import SimpleNamespace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from remora.errors import OptionError
from remora.jupyter.commands import COMMANDS, Command, command_help, parse_command
from remora.jupyter.options import LATER, OPTIONS, CellOptions, build, find, help_text, parse
from remora.jupyter.words import Expression, Word, expand, words
from remora.options import quote
from remora.resources import Gpu, Resources

NAMES = {
    "n": 4,
    "kind": "A100",
    "kinds": ["A100", "H100:2"],
    "size": "16GiB",
    "d": {"v": "2.1", "}": "{"},
    "token": "s3 cr'et\"{n}",
    "env": {"A": 1, "B": "two words"},
    "none": None,
    "names": ["x", "y"],
}


def evaluate(text):
    """Return an expression's value among NAMES."""
    return eval(text, {}, dict(NAMES))


def read(line):
    """Parse with NAMES."""
    return parse(line, evaluate)


def refused(line):
    """Return what a wrong line says."""
    with pytest.raises(OptionError) as caught:
        read(line)
    assert "\n" not in str(caught.value).replace(line, "")
    return str(caught.value)


# ---- how they are written ------------------------------------------------------------------------------------------


def test_nothing():
    """An empty line gives the defaults, none of them written."""
    assert read("") == read("  \t") == CellOptions()
    assert CellOptions().given == frozenset()


@pytest.mark.parametrize(
    "line",
    [
        "gpu=A100 cpu=4 memory=16GiB timeout=30m",
        "--gpu A100 --cpu 4 --memory 16GiB --timeout 30m",
        "--gpu=A100 --cpu=4 --memory=16GiB --timeout=30m",
        "timeout=30m memory=16GiB cpu=4 gpu=A100",
        "  gpu='A100'\tcpu=\"4\"   memory='16 GiB' --timeout '30 m' ",
        'gpu={kind} cpu={n} memory={size} timeout="{n*7+2} m"',
        "--gpu {kind} --cpu {n} --memory {size} --timeout {30*60}",
    ],
)
def test_three_ways(line):
    """`key=value`, `--key value` and `--key=value` say the same, in any order, quoted or by expression."""
    found = read(line)
    assert found.resources == Resources((Gpu("A100"),), 4.0, 16 * 2**30)
    assert found.timeout == 1800.0
    assert found.given == {"gpu", "cpu", "memory", "timeout"}


def test_every_option():
    """Every option of the table ends up where CellOptions says."""
    found = read(
        "on=here gpu=A100,H100:2 cpu=0.5 memory=1GiB timeout=2s idle=20m files=ro session=second jail=landlock env=A=1 "
        "pip='a>=1,<2 b' apt='curl xz-utils' requirements=r.txt secret=hf,.env python=3.12 image=mine "
        "-i x,y --out model --no-sync --detach --fresh --both"
    )
    assert found == CellOptions(
        Resources((Gpu("A100"), Gpu("H100", 2)), 0.5, 2**30),
        "here",
        "ro",
        "second",
        "landlock",
        (("A", "1"),),
        pip=("a>=1,<2", "b"),
        apt=("curl", "xz-utils"),
        requirements=("r.txt",),
        secrets=("hf", ".env"),
        python="3.12",
        image="mine",
        timeout=2.0,
        idle=1200.0,
        inputs=("x", "y"),
        outputs=("model",),
        sync=False,
        detach=True,
        fresh=True,
        both=True,
        given=frozenset(option.name for option in OPTIONS),
    )


def test_variables_in_and_out():
    """Names come with commas, spaces, lists, or one by one; quotes with nothing in them mean none at all."""
    assert read("-i x -i y,z").inputs == ("x", "y", "z")
    assert read("--in=x,y -o a -o a").outputs == ("a",)
    assert read("in='x, y' out={names}").inputs == ("x", "y")
    assert read("in='x, y' out={names}").outputs == ("x", "y")
    assert read("-i=x").inputs == ("x",)
    assert read('in="" -o ""').inputs == read('in="" -o ""').outputs == ()
    assert read("").inputs is read("").outputs is None
    assert "2x" in refused("-i 2x")
    assert "class" in refused("-o class")
    assert "model.weights" in refused("-o model.weights")


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("pip=torch", ("torch",)),
        ('pip="torch>=2.1,<3 transformers[torch]"', ("torch>=2.1,<3", "transformers[torch]")),
        ("pip=a,b", ("a", "b")),
        ("pip='a, b == 1.*, c[x,y]~=2'", ("a", "b == 1.*", "c[x,y]~=2")),
        ("pip='a (>=1,<2)'", ("a (>=1,<2)",)),
        ("pip='a>= 1.0 , <2 b'", ("a>= 1.0 , <2", "b")),
        ("pip='a; python_version < \"3.12\"'", ('a; python_version < "3.12"',)),
        ("pip='a @ https://x.org/a.whl b'", ("a @ https://x.org/a.whl", "b")),
        ("pip='git+https://x.org/a.git ./b-1.whl'", ("git+https://x.org/a.git", "./b-1.whl")),
        ("pip={names}", ("x", "y")),
        ("pip=a pip=b pip=a", ("a", "b")),
        ("requirements='a b.txt' requirements=c", ("a b.txt", "c")),
    ],
)
def test_packages(line, found):
    """A new requirement begins behind a space or a comma, not at the commas of a specifier; lists and repetition add up."""
    chosen = read(line)
    assert (chosen.requirements if line.startswith("req") else chosen.pip) == found
    assert build({"pip": chosen.pip or None}).pip == chosen.pip
    assert parse(str(chosen), lambda _: None) == chosen


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("pip='-r file'", "remora.Image.pip_install"),
        ("pip='a>=b=c!'", "no requirement"),
        ("pip='a b$'", "'b$'"),
        ("python=2.7", "python=3.12"),
        ("python=snake", "python=3.12"),
        ("image='a b'", "no name of an image"),
        ("requirements=''", "the path of a file"),
        ("apt='a; rm'", "no package of Debian"),
    ],
)
def test_wrong_packages(line, part):
    """What is no requirement, version, name or path says how to write it."""
    assert part in refused(line)


def test_environment():
    """Variables of the environment come as NAME=VALUE, as JSON, as a Python dictionary, or from a dictionary of the notebook."""
    assert read("env=A=1").environment == (("A", "1"),)
    assert read("--env A=1 env=B='x=y z'").environment == (("A", "1"), ("B", "x=y z"))
    assert read("--env cpu=1 cpu=2").environment == (("cpu", "1"),)
    assert read("env=A=1 env=B=2 env=A=3").environment == (("A", "3"), ("B", "2"))
    assert read('env={"A":1, "B": "x y"}').environment == (("A", "1"), ("B", "x y"))
    assert read("env={'A': 1}").environment == (("A", "1"),)
    assert read("""env="{'A': 'x'}" """).environment == (("A", "x"),)
    assert read("env={env}").environment == (("A", "1"), ("B", "two words"))
    assert read("env=TOKEN={token}").environment == (("TOKEN", NAMES["token"]),)
    assert read("env={}").environment == ()
    for wrong in ("env=A", "env=3A=1", 'env={"A": [1]}', 'env={"A": null}', "env={n}", "env={1: 2}", "env={[}"):
        assert "env" in refused(wrong)
    assert "s3" not in refused("env={{'A B': token}}")


def test_none_is_the_default():
    """`none` and an expression that gives None take back what a lower layer says."""
    for line in ("gpu=none cpu=None memory=none timeout=none idle=never jail=none", "gpu={none} cpu={none} timeout={none}"):
        found = read(line)
        assert found.resources == Resources()
        assert (found.timeout, found.idle, found.jail) == (None, None, None)
        assert "gpu" in found.given
    assert read("files=none").files == "none"


def test_flags():
    """A flag is on when it is written; it may say so, or the opposite."""
    assert read("--detach").detach
    assert read("detach=true --both=yes").both
    assert not read("--fresh=false").fresh
    assert "fresh" in read("--fresh=no").given
    assert read("--no_sync").sync is False
    assert read("--no-sync=false").sync is True
    assert "true or false" in refused("--detach=maybe")
    assert "--detach" in refused("detach")


def test_gpu_list():
    """A list of the notebook is an order of preference, as in a function's signature."""
    assert read("gpu={kinds}").resources.gpu == (Gpu("A100"), Gpu("H100", 2))


# ---- what is wrong ---------------------------------------------------------------------------------------------------


def test_unknown_option():
    """An unknown option names the nearest one and the place where all are."""
    message = refused("gpus=A100")
    assert "'gpus'" in message
    assert "did you mean gpu?" in message
    assert "%remote?" in message
    assert "did you mean" not in refused("--xyzzy")
    assert "%remote?" in refused("--xyzzy")
    assert "memory" in refused("--memroy 16GiB")


def test_stray_words():
    """A word that is no option says how options are written."""
    assert "key=value" in refused("A100")
    assert "gpu=VALUE" in refused("gpu A100")
    assert "key=value" in refused("cpu=4 'a b'")
    assert "key=value" in refused("x==1 = 3") or "'x'" in refused("x==1 = 3")


@pytest.mark.parametrize("line", ["gpu=", "--gpu", "--gpu --fresh", "--gpu cpu=4", "gpu= cpu=4", "-i", "-i -o x", "env=", "-i="])
def test_missing_value(line):
    """A missing value is said by the option's name, with what it wants."""
    assert "has no value" in refused(line)


def test_duplicate():
    """An option given twice is refused, in whatever ways it is written."""
    for line in ("gpu=A100 gpu=H100", "gpu=A100 --gpu A100", "--detach --detach", "no_sync=1 --no-sync"):
        assert "twice" in refused(line)


@pytest.mark.parametrize("line", ["gpu='A100", 'gpu="A100 cpu=4', "env=it's", "'", "env=\"{'a' "])
def test_unclosed_quote(line):
    """A quote that is not closed is shown from where it opens."""
    assert "not closed" in refused(line)


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("memory=16", "16GiB"),
        ("memory=lots", "unit"),
        ("memory={2**30}", "unit"),
        ("memory=" + "9" * 400 + "GiB", "memory"),
        ("timeout=soon", "timeout=90s"),
        ("timeout=" + "9" * 400, "longer"),
        ("idle=-1", "idle"),
        ("cpu=many", "cores"),
        ("cpu=nan", "cores"),
        ("gpu=,", "gpu=A100"),
        ("gpu=A100:0", "gpu=A100"),
        ("files=rwx", "rw, ro, none"),
        ("files={[1]}", "rw, ro, none"),
        ("jail=docker", "bubblewrap"),
        ("session='a b'", "name"),
        ("session=../x", "name"),
        ("on='my host'", "name"),
    ],
)
def test_wrong_value(line, part):
    """A wrong value says how to write it."""
    assert part in refused(line)


@pytest.mark.parametrize("name", sorted(LATER))
def test_options_of_later_versions(name):
    """An option of a later version is refused with what works instead, however it is written."""
    for line in (f"{name}=x", f"--{name} x", f"--{name}='x y' gpu=A100"):
        assert f"cannot do {name}= yet; {LATER[name]}" in refused(line)


def test_expression_that_raises():
    """An expression that raises is an error of the option, with the exception's own words."""
    message = refused("cpu={unknown_name}")
    assert "cpu: {unknown_name} raised NameError" in message
    assert "ZeroDivisionError" in refused("cpu={1/0}")


def test_object_without_text():
    """An object that cannot be written as text is an error of the option."""

    class Stubborn:
        def __str__(self):
            raise RuntimeError("no")

    for line in ("cpu={x}", "cpu=a{x}", "session={x}", "timeout={x}", "files={x}"):
        with pytest.raises(OptionError):
            parse(line, lambda text: Stubborn())


# ---- words, quotes, braces -------------------------------------------------------------------------------------------


def test_braces_that_are_no_expression():
    """Braces without an expression stay as they are, with the quotes and spaces in them."""
    assert list(words('env={"A": 1}')) == [Word("env", ('{"A": 1}',))]
    assert list(words("env={} x={")) == [Word("env", ("{}",)), Word("x", ("{",))]
    assert list(words('env="{x y}" b={x y}')) == [Word("env", ("{x y}",)), Word("b", ("{x y}",))]
    assert list(words("a={n:>5}")) == [Word("a", ("{n:>5}",))]


def test_expressions():
    """Braces nest, hold quotes and spaces, and work within quotes and beside text."""
    assert list(words('a={d["v"]}')) == [Word("a", (Expression('d["v"]'),))]
    assert list(words("a={ {'x': {1: 2}}['x'] }")) == [Word("a", (Expression("{'x': {1: 2}}['x']"),))]
    assert list(words("a={d['}']}b")) == [Word("a", (Expression("d['}']"), "b"))]
    assert list(words('a="torch {d["v"]} x"')) == [Word("a", ("torch ", Expression('d["v"]'), " x"))]
    assert list(words("{n}")) == [Word(None, (Expression("n"),))]
    assert expand((Expression("n"),), evaluate, "a") == 4
    assert expand(("x", Expression("n"), Expression("n")), evaluate, "a") == "x44"
    assert expand((Expression("d['}']"),), evaluate, "a") == "{"


def test_one_bad_brace_spoils_no_other():
    """A brace group that is no expression does not keep another one from being expanded."""
    assert read('env={"A":1} gpu={kind}').resources.gpu == (Gpu("A100"),)


def test_backslashes():
    """A backslash keeps quotes, braces, spaces and itself; elsewhere it is a character, as in a path."""
    assert list(words(r"a=\{n\} b=x\ y c=C:\dir d=\\ e=\"")) == [
        Word("a", ("{n}",)),
        Word("b", ("x y",)),
        Word("c", (r"C:\dir",)),
        Word("d", ("\\",)),
        Word("e", ('"',)),
    ]
    assert list(words("a=\\")) == [Word("a", ("\\",))]


@given(st.text(max_size=80))
@example('{n} "\\"')
@example("\\")
def test_quoting_round_trip(text):
    """Whatever is quoted is read as it was, as one value."""
    assert list(words(f"a={quote(text)} b=1")) == [Word("a", (text,)), Word("b", ("1",))]
    assert list(words(quote(text))) == [Word(None, (text,))]


_ALPHABET = ["gpu", "cpu=", "--in", "-i ", "env=", "{n}", "{kinds}", "memory=", "GiB", "none", "{1/0}", "9" * 500]
_ALPHABET += list("{}'\"\\ =-,:!%ab1\t\n")


@given(st.lists(st.sampled_from(_ALPHABET), max_size=25).map("".join) | st.text(max_size=60))
def test_only_option_errors(line):
    """Whatever is typed is options, a command, or an OptionError of one line."""
    for take in (parse, parse_command):
        try:
            take(line, evaluate)
        except OptionError as error:
            assert str(error)


@given(st.text(alphabet="{}[]()'\"\\ n", max_size=3000))
def test_deep_nesting(text):
    """Nesting without end neither overflows nor hangs."""
    with suppress(OptionError):
        list(words("a=" + "{" * 500 + text))


# ---- layers ----------------------------------------------------------------------------------------------------------


def test_over():
    """Only what is given overrides, option by option, also within resources."""
    default, last, line = read("gpu=A100 timeout=1h files=ro"), read("cpu=4 --fresh"), read("gpu=none --detach")
    found = line.over(last.lasting()).over(default)
    assert found.resources == Resources((), 4.0, None)
    assert (found.timeout, found.files, found.detach, found.fresh) == (3600.0, "ro", True, False)
    assert found.given == {"gpu", "cpu", "timeout", "files", "detach"}


def test_line_without_options_reuses_the_last():
    """A bare line comes to what describes the last sandbox, without what was for one cell."""
    last = read("gpu=A100 session=b -i x -o y timeout=2s --no-sync --detach --fresh --both env=A=1 idle=1h")
    found = read("").over(last.lasting())
    assert found == read("gpu=A100 session=b env=A=1 idle=1h")


_layer = st.sampled_from(
    ["", "gpu=A100", "gpu=none cpu=2", "--detach", "--no-sync=false -i x", 'in="" env=A=1', "memory=1GiB timeout=3s", "on=box"]
).map(read)


@given(_layer, _layer, _layer)
def test_layers_are_associative(top, middle, bottom):
    """It does not matter which two layers are put together first, and nothing over itself changes nothing."""
    assert top.over(middle).over(bottom) == top.over(middle.over(bottom))
    assert top.over(top) == top
    assert top.over(CellOptions()) == CellOptions().over(top) == top


_name_text = st.sampled_from(["x", "y_1", "größe"])
_values = st.fixed_dictionaries(
    {},
    optional={
        "gpu": st.sampled_from(["A100", "A100:2", "A100,H100!", "none"]),
        "cpu": st.floats(0.01, 4096),
        "memory": st.integers(16 * 2**20, 2**50).map(lambda n: f"{n}B"),
        "timeout": st.floats(1e-5, 1e9).map(lambda x: f"{x:.9f}"),
        "idle": st.sampled_from(["never", "20m"]),
        "session": st.sampled_from(["main", "b"]),
        "files": st.sampled_from(["rw", "ro", "none"]),
        "env": st.dictionaries(
            st.sampled_from(["A", "B_2"]), st.text(alphabet=st.characters(exclude_characters="\0"), max_size=20)
        ),
        "in": st.lists(_name_text, max_size=3),
        "out": st.lists(_name_text, max_size=3),
        "no-sync": st.booleans(),
        "detach": st.booleans(),
    },
)


@given(_values)
def test_text_round_trip(values):
    """Options written as text, as a notebook's metadata keeps them, are read as they were."""
    options = build(values)
    assert options.given == set(values)
    assert read(str(options)) == options


def test_build():
    """Values by name, as a command line has them, make the same options; None is not given."""
    assert build({"gpu": "A100", "cpu": None, "no_sync": True, "env": {"A": 1}}) == read("gpu=A100 --no-sync env=A=1")
    with pytest.raises(OptionError, match="no option 'gpus'"):
        build({"gpus": "A100"})


# ---- commands --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("", Command("show")),
        ("  ", Command("show")),
        ("on", Command("on")),
        ("off ", Command("off")),
        ("stop", Command("stop")),
        ("stop second", Command("stop", ("second",))),
        ("pull model  scores,df", Command("pull", ("model", "scores", "df"))),
        ("runs", Command("runs")),
        ("attach r-1234", Command("attach", ("r-1234",))),
        ("cancel {kind}", Command("cancel", ("A100",))),
        ("default", Command("default")),
        ("default none", Command("default", options=CellOptions())),
        ("default gpu={kind} timeout=1h", Command("default", options=read("gpu=A100 timeout=1h"))),
    ],
)
def test_commands(line, command):
    """Every command is read as it is written."""
    assert parse_command(line, evaluate) == command


def test_command_takes_a_run():
    """A run handle of the notebook stands for its id."""
    assert parse_command("attach {job}", lambda text: SimpleNamespace(id="r-7")) == Command("attach", ("r-7",))


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("port", "`%remote port PORT [SESSION]`"),
        ("stpo", "did you mean `%remote stop`?"),
        ("xyzzy", "%remote?"),
        ("gpu=A100", "%%remote gpu=A100"),
        ("gpus=A100", "did you mean gpu?"),
        ("--fresh", "%remote default --fresh"),
        ("on now", "`%remote on`"),
        ("stop a b", "`%remote stop [SESSION]`"),
        ("stop --all", "names"),
        ("pull", "`%remote pull NAME…`"),
        ("pull ,", "`%remote pull NAME…`"),
        ("pull 2x", "'2x'"),
        ("attach", "`%remote attach RUN`"),
        ("attach a b", "`%remote attach RUN`"),
        ("default gpus=1", "did you mean gpu?"),
        ("default budget=3", "timeout="),
        ("stop 'a", "not closed"),
    ],
)
def test_wrong_commands(line, part):
    """A wrong command says what to write instead."""
    with pytest.raises(OptionError) as caught:
        parse_command(line, evaluate)
    assert part in str(caught.value)


def test_help_names_everything():
    """The help lists every option, its short form and default, and every command."""
    for option in OPTIONS:
        assert option.name in help_text()
        assert option.help in help_text()
        assert find(option.name) is option
        assert all(alias in help_text() for alias in option.aliases)
    for verb in COMMANDS.values():
        assert verb.usage in command_help()
    assert help_text() in command_help()
    assert max(map(len, command_help().splitlines())) <= 130
