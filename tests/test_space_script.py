"""scripts/space.py as a person calls it, in this process."""

import importlib.util
import json
import pathlib
import xml.etree.ElementTree as ElementTree

import pytest

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("space_script", ROOT / "scripts" / "space.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def call(script, capsys):
    """Calls the script; returns its exit status, and what it printed."""

    def call(*arguments):
        try:
            status = script.main(arguments)
        except SystemExit as ended:
            status = ended.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.mark.parametrize(
    ("block", "shape", "parameters"),
    [
        ("resnet18_no_maxpool", "3x64x64", 11_210_560),
        ("wideresnet16_4", "1x27x18", 2_748_288),
        ("transformer", "3x28x28", 4_261_888),
        ("mlp_mixer", "3x64x64", 6_472_192),
        ("lstm", "32x7", 4 * 64 * (64 + 7 + 1)),
    ],
)
def test_the_last_number_is_the_size_of_the_backbone(call, block, shape, parameters):
    status, out, _ = call("parameters", f"--block={block}", f"--input={shape}")
    assert status == 0 and out.split()[-1] == str(parameters)


def test_a_head_is_counted_apart(call):
    _, out, _ = call("parameters", "--block=resnet18_no_maxpool")
    assert "with a head of 10 outputs: 11215690" in out
    assert "121 terminals, 144 non-terminals, 265 nodes, depth 11, mean b 1.802" in out


def test_samples_of_a_seed_are_json_that_is_read_back(script, call):
    status, out, _ = call("sample", "--space=einspace", "--n=3", "--seed=5", "--json", "--input=3x8x8")
    records = [json.loads(line) for line in out.splitlines()]
    assert status == 0 and [record["number"] for record in records] == [0, 1, 2]
    assert {record["status"] for record in records} == {"valid"}
    space = script.SPACES["einspace"](in_shape=(3, 8, 8))
    for record in records:
        candidate = space.from_json(record["candidate"])
        assert space.describe(candidate) == record["text"] and "3x8x8" in record["text"]
    text = call("sample", "--space=einspace", "--n=1", "--seed=5", "--input=3x8x8")[1]
    assert text.splitlines()[0] == "0: valid"
    assert text.splitlines()[1].strip() == records[0]["text"].splitlines()[0]


def test_samples_of_elenas_take_settings(call):
    status, out, _ = call("sample", "--space=elenas", "--set=num_nodes=6", "--input=4x3", "--json")
    assert status == 0 and json.loads(out)["candidate"]["num_nodes"] == 6


def test_check_mutates_published_architectures(call):
    seeds = '--set=seeds=("transformer", "mlp_mixer")'
    status, out, _ = call("check", "--space=einspace", "--starts", seeds, "--n=4", "--input=3x16x16")
    assert status == 0 and "4 mutations of the starts, seed 0: 0 failures" in out
    status, _, err = call("check", "--space=elenas", "--starts")
    assert status == 2 and "made without starts" in err


def test_check_takes_a_prediction_for_each_pixel(call):
    status, out, _ = call("check", "--space=einspace", "--input=1x8x8", "--outputs=64", "--n=3")
    assert status == 0 and "0 failures" in out


def test_elenas_is_checked_as_any_space(call):
    status, out, _ = call("check", "--space=elenas", "--set=num_nodes=8", "--n=6")
    assert status == 0 and "6 samples and their mutations, seed 0: 0 failures" in out


def test_check_ends_with_0_where_nothing_fails_and_with_1_elsewhere(call):
    status, out, _ = call("check", "--space=einspace", "--n=6", "--input=3x16x16")
    assert (status, out) == (0, "einspace: 6 samples and their mutations, seed 0: 0 failures.\n")
    # What the public code draws is wrong in a fifth of the cases.
    status, out, _ = call("check", "--space=einspace", "--n=12", "--set=rules=compat", "--input=3x16x16")
    assert status == 1 and "sample not valid" in out and "number " in out


def test_grammars_are_counted_and_analysed(call, tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("S -> a S [1] | b [3]\n", encoding="utf-8")
    status, out, _ = call("count", f"--grammar={path}", "--max_depth=2", "--max_nodes=3")
    assert status == 0 and [line.split() for line in out.splitlines()[-3:]] == [
        ["1", "1", "1"],
        ["2", "1", "2"],
        ["3", "1", "3"],
    ]
    status, out, _ = call("analyse", f"--grammar={path}")
    assert status == 0 and "spectral radius: 0.250000 = 1/4" in out
    assert "expected terminals of S: 1.333333 = 4/3" in out


def test_the_analysis_of_einspace_has_the_published_numbers_both_ways(call):
    status, out, _ = call("analyse", "--grammar=einspace")
    once, copied = out.split("as they are built")
    assert status == 0
    assert "spectral radius: 0.982222 = 221/225" in once and "spectral radius: 1.737778" in copied
    assert "expected terminals of S: 101\n" in once and "expected terminals of S: infinite\n" in copied
    assert "M -> computation C: 0.307692 = 4/13" in once and "M -> computation C: 0.608696 = 14/23" in copied


def test_sizes_stand_beside_the_published_ones(call):
    status, out, _ = call("stats", "--p=0.9", "--n=100", "--seed=1", "--input=3x16x16")
    assert status == 0 and "100 samples each, compat rules, input 3x16x16, seed 1" in out
    assert [line.split()[:2] for line in out.splitlines() if line.startswith("0.9")][:2] == [
        ["0.9", "drawn"],
        ["0.9", "published"],
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--block=resnet10",),
        ("--block=resnet10", "--kind=tree"),
        ("--block=lstm",),
        ("--space=einspace", "--seed=2", "--kind=tree"),
    ],
)
def test_pictures_are_drawn(call, tmp_path, arguments):
    path = tmp_path / "picture.svg"
    status, out, _ = call("draw", *arguments, f"--out={path}")
    assert status == 0 and str(path) in out
    assert ElementTree.parse(path).getroot().tag.endswith("svg")
    assert list(tmp_path.iterdir()) == [path]


def test_a_picture_may_be_a_png_and_a_description_needs_no_file(call, tmp_path):
    path = tmp_path / "picture.png"
    assert call("draw", "--block=gru", f"--out={path}")[0] == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    status, out, _ = call("draw", "--block=resnet10", "--kind=text")
    assert status == 0 and "676,352 parameters" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sample", "--space=einspac"), "invalid choice: 'einspac'"),
        (("sample",), "required: --space"),
        (("sample", "--space=einspace", "--set=p=1"), "space.p is no key"),
        (("sample", "--space=einspace", "--set=max_nodes"), "--set=max_nodes: it must look like KEY=VALUE"),
        (("sample", "--space=einspace", "--set=max_nodes=2"), "max_nodes is 2"),
        (("sample", "--space=elenas", "--input=3x8x8"), "it is TIMExFEATURES"),
        (("check", "--space=einspace", "--n=0"), "'0' must be a whole number from 1"),
        (("count", "--grammar=einspce"), "no such file, and no grammar; did you mean 'einspace'"),
        (("analyse", "--grammar=README"), "no such file"),
        (("parameters", "--block=resnet19"), "did you mean 'resnet18'"),
        (("parameters", "--block=transformer", "--input=3x2x2"), "does not fit --input=3x2x2"),
        (("parameters", "--block=lstm", "--input=3x2x2"), "TIMExFEATURES, like 32x7"),
        (("draw", "--out=a.svg"), "Name what is to be drawn"),
        (("draw", "--block=lstm"), "--out=FILE.svg or FILE.png is missing"),
        (("draw", "--block=lstm", "--out=a.pdf"), "must end in .svg or .png"),
        (("draw", "--block=lstm", "--out=none/a.svg"), "there is no folder"),
        (("draw", "--block=lstm", "--kind=tree", "--out=a.svg"), "has no derivation tree"),
        (("stats", "--p=0"), "'0' must be numbers between 0 and 1"),
    ],
)
def test_mistakes_are_one_line_and_status_2(call, arguments, message):
    status, out, err = call(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1 and message in err


def test_a_grammar_with_a_mistake_is_named_with_its_line(call, tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("S -> a S\nS b\n", encoding="utf-8")
    status, _, err = call("count", f"--grammar={path}")
    assert status == 2 and f"{path}: line 2:" in err
    path.write_bytes(b"S -> \xff")
    assert "it is no text" in call("count", f"--grammar={path}")[2]


@pytest.mark.parametrize("command", ("sample", "check", "count", "analyse", "parameters", "stats", "draw"))
def test_each_command_has_help(call, command):
    status, out, _ = call(command, "--help")
    assert status == 0 and f"space.py {command}" in out and "--" in out
