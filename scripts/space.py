r"""Looks into search spaces and grammars: draws, checks, counts, analyses, measures and draws pictures.

  python scripts/space.py sample --space=einspace --n=3 --seed=0
  python scripts/space.py check --space=einspace --n=1000
  python scripts/space.py count --grammar=einspace --max_nodes=12
  python scripts/space.py analyse --grammar=einspace
  python scripts/space.py parameters --block=resnet18_no_maxpool --input=3x64x64
  python scripts/space.py stats --p=0.9,0.7 --n=2000 --rules=compat
  python scripts/space.py draw --block=transformer --out=transformer.svg

Each has its own --help. What is wrong with the arguments is one line, and the exit status 2; `check` ends
with 1 if anything fails. A space takes the keys of a config's `space` section as --set=KEY=VALUE.
"""

import argparse
import ast
import inspect
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import rich.console
import rich.progress

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from elenas_jax.analysis.draw import draw_block
from elenas_jax.analysis.raster import write_png
from elenas_jax.analysis.tables import Table, show
from elenas_jax.experiment import space_check
from elenas_jax.experiment.build import build_space, build_tasks
from elenas_jax.experiment.command_line import Parser, probabilities, shape, whole
from elenas_jax.experiment.config import check_config
from elenas_jax.experiment.einspace_sizes import (
    SHARE_COLUMNS,
    SIZE_COLUMNS,
    draw_architectures,
    share_rows,
    size_rows,
)
from elenas_jax.experiment.flags import check_writable
from elenas_jax.experiment.grammar_report import count_lines, expectation_rows, growth_lines, symbol_lines
from elenas_jax.experiment.rules import ConfigError, suggestion
from elenas_jax.experiment.run_dir import RunError, write_atomically
from elenas_jax.graphs import KNOWN_BLOCKS, construct, equations
from elenas_jax.graphs.program import num_parameters
from elenas_jax.spaces import SPACES
from elenas_jax.spaces.einspace_analysis import terminal_length, with_copies
from elenas_jax.spaces.einspace_drawing import draw_derivation, draw_tree, shape_text
from elenas_jax.spaces.einspace_grammar import make_einspace_grammar
from elenas_jax.spaces.einspace_listing import describe_derivation
from elenas_jax.spaces.einspace_network import make_backbone
from elenas_jax.spaces.einspace_seeds import SEEDS, make_seed
from elenas_jax.spaces.einspace_statistics import distribution_of, size_of
from elenas_jax.spaces.einspace_typing import Typed, infer, state_of
from elenas_jax.spaces.elenas_drawing import draw_network
from elenas_jax.spaces.grammar import Grammar, parse_grammar, to_tree
from elenas_jax.types import AnyTask, PyTree, SearchSpace

GRAMMARS: dict[str, Callable[[], Grammar]] = {
    "einspace": make_einspace_grammar,
    "einspace_1d": lambda: make_einspace_grammar(num_axes=2),
}
MOST_SHOWN = 5  # failures of one kind


class Made(NamedTuple):
    """A space, and the tasks that it is made for."""

    space: SearchSpace
    tasks: Sequence[AnyTask]
    settings: dict[str, Any]


def make_space(args: argparse.Namespace) -> Made:
    """Returns the space that --space, --input, --outputs and --set name."""
    given: dict[str, Any] = {"name": args.space}
    for text in args.set:
        key, sign, value = text.partition("=")
        if not (key and sign):
            raise ConfigError(f"--set={text}: it must look like KEY=VALUE.")
        given[key] = _value(value)
    config = check_config({"space": given})
    parameters = inspect.signature(SPACES[args.space]).parameters
    as_sequence = "in_shape" not in parameters
    if as_sequence and args.input is None:
        tasks = build_tasks(config)
    else:
        shape = args.input or parameters["in_shape"].default
        if as_sequence and len(shape) != 2:
            raise ConfigError(f"--input={shape_text(shape)}: with --space={args.space} it is TIMExFEATURES.")
        tasks = (space_check.shape_task(shape, args.outputs, as_sequence=as_sequence),)
    return Made(build_space(config, tasks), tasks, config["space"])


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def draw_candidates(space: SearchSpace, seed: int, num: int) -> Iterator[PyTree]:
    """Yields the samples of a seed, on the host."""
    drawn = jax.jit(space.sample)
    for number in range(num):
        key = jax.random.fold_in(jax.random.key(seed), number)
        yield jax.tree.map(np.asarray, drawn(key))


def sample(args: argparse.Namespace) -> int:
    """Shows candidates that are drawn, with their statuses."""
    space = make_space(args).space
    for number, candidate in enumerate(draw_candidates(space, args.seed, args.n)):
        status = space.reasons[int(space.status(candidate))]
        if args.json:
            record = {"number": number, "status": status, "candidate": space.to_json(candidate)}
            print(json.dumps(record | {"text": space.describe(candidate)}))
        else:
            print(f"{number}: {status}\n{_indented(space.describe(candidate))}")
    return 0


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def check(args: argparse.Namespace) -> int:
    """Checks samples and a mutation of each; returns 1 if one fails."""
    made = make_space(args)
    key, infer = jax.random.key(args.seed), _inference(made)
    results = space_check.check_space(made.space, made.tasks, key, args.n, infer, starts=args.starts)
    failures = [failure for found in _tracked(results, args.n, "checking") for failure in found]
    counts = Counter(failure.what for failure in failures)
    of = "mutations of the starts" if args.starts else "samples and their mutations"
    about = f"{args.space}: {args.n:,} {of}, seed {args.seed}"
    if not failures:
        print(f"{about}: 0 failures.")
        return 0
    print(f"{about}: {len(failures):,} failures.")
    for what, count in counts.most_common():
        print(f"{count:6,}  {what}")
        for failure in [each for each in failures if each.what == what][:MOST_SHOWN]:
            print(f"        number {failure.number}: {failure.detail}")
    return 1


def count(args: argparse.Namespace) -> int:
    """Shows how many derivations a grammar has, all or by depth and by nodes."""
    for line in count_lines(read_grammar(args.grammar), args.max_depth, args.max_nodes):
        print(line)
    return 0


def analyse(args: argparse.Namespace) -> int:
    """Shows what a grammar leads to on average."""
    grammar = read_grammar(args.grammar)
    for line in symbol_lines(args.grammar, grammar):
        print(line)
    ways = {"": grammar}
    if args.grammar in GRAMMARS:
        ways = {
            "Branches that share a module count once, as they are derived": grammar,
            "Branches that share a module count each, as they are built": with_copies(grammar),
        }
    for title, written in ways.items():
        print(f"\n{title}".rstrip("\n"))
        matrix = expectation_rows(written)
        heads = written.nonterminals
        of_each = "Expected number of each (column) when one (row) is replaced"
        show(Table(of_each, ("", *heads), matrix, frozenset(heads)))
        for line in growth_lines(written, terminal_length if args.grammar in GRAMMARS else lambda _: 1):
            print(line)
    return 0


def read_grammar(name: str) -> Grammar:
    """Returns the grammar of a known name, or of a file."""
    if name in GRAMMARS:
        return GRAMMARS[name]()
    path = Path(name)
    if not path.is_file():
        raise ConfigError(f"--grammar={name}: no such file, and no grammar{suggestion(name, GRAMMARS)}.")
    try:
        return parse_grammar(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name}: it is no text ({error.reason}).") from error
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from error


def parameters(args: argparse.Namespace) -> int:
    """Shows the size of a published architecture."""
    if args.block in KNOWN_BLOCKS:
        time_steps, features = _sequence_shape(args.input or (32, 7))
        program = construct(
            KNOWN_BLOCKS[args.block],
            in_features=features,
            out_features=args.outputs,
            hidden_features=args.hidden,
            head="linear",
            time_steps=time_steps,
        )
        total = int(num_parameters(program))
        backbone = total - (program.hidden_features + 1) * program.out_features
        print(f"{args.block}: {time_steps} steps of {features} features, width {args.hidden}")
    else:
        typed = typed_seed(args.block, args.input or (3, 64, 64))
        size, after = size_of(typed), typed.after.shape
        backbone, total = typed.parameters, typed.parameters + (after[0] + 1) * args.outputs
        print(f"{args.block}: {shape_text(typed.before.shape)} -> {shape_text(after)}")
        print(
            f"{size.terminals} terminals, {size.nonterminals} non-terminals, {size.nodes} nodes, "
            f"depth {size.depth}, mean b {size.mean_branches:.3f}"
        )
        print(f"activations of an example: {typed.activations}; operations: {typed.flops}")
    print(f"parameters with a head of {args.outputs} outputs: {total}")
    print(f"parameters of the backbone, without head: {backbone}")
    return 0


def _sequence_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    if len(shape) != 2:
        raise ConfigError(f"--input={shape_text(shape)}: for this block it is TIMExFEATURES, like 32x7.")
    return shape[0], shape[1]


def typed_seed(name: str, shape: tuple[int, ...]) -> Typed:
    """Returns a published architecture of einspace with its shapes."""
    if name not in SEEDS:
        raise ConfigError(f"--block={name}: no such block{suggestion(name, [*SEEDS, *KNOWN_BLOCKS])}.")
    grammar = make_einspace_grammar(num_axes=len(shape))
    try:
        return infer(make_seed(name, grammar), state_of(shape), grammar=grammar)
    except ValueError as error:
        raise ConfigError(f"--block={name} does not fit --input={shape_text(shape)}: {error}.") from error


def stats(args: argparse.Namespace) -> int:
    """Shows how large drawn architectures of einspace are, for each probability of a computation."""
    shape = args.input or (3, 64, 64)
    found = []
    endless = [p for p in args.p if p <= 4 / 13]  # expected sizes are infinite
    if endless and not args.max_nodes:
        raise ConfigError(f"--p={endless[0]:g} needs --max_nodes: below 4/13 draws need not end.")
    for p in args.p:
        draws = draw_architectures(
            p, args.n, shape, rules=args.rules, max_nodes=args.max_nodes, seed=args.seed
        )
        found.append((p, distribution_of(list(_tracked(draws, args.n, f"p = {p:g}")))))
    about = f"{args.n:,} samples each, {args.rules} rules, input {shape_text(shape)}, seed {args.seed}"
    show(
        Table(f"Sizes, copies counted ({about})", SIZE_COLUMNS, size_rows(found), frozenset(SIZE_COLUMNS[2:]))
    )
    print()
    show(Table("Trees, parameters and shares", SHARE_COLUMNS, share_rows(found), frozenset(SHARE_COLUMNS)))
    return 0


def draw_picture(args: argparse.Namespace) -> int:
    """Draws a block or a sample as a picture, or as text."""
    drawing, text, name = _picture(args)
    if args.kind == "text":
        print(text)
        return 0
    if args.out is None:
        raise ConfigError("--out=FILE.svg or FILE.png is missing; see --help.")
    path = Path(args.out)
    if path.suffix not in (".svg", ".png"):
        raise ConfigError(f"--out={args.out}: the name must end in .svg or .png.")
    check_writable("out", args.out)
    write_picture = write_atomically if path.suffix == ".svg" else write_png
    write_picture(path, draw_block(drawing, name))
    print(f"{path}: {len(drawing['nodes'])} boxes, {len(drawing['edges'])} arrows")
    return 0


def _picture(args: argparse.Namespace) -> tuple[dict[str, Any], str, str]:
    """Returns the drawing, the text and the name of what is to be drawn."""
    if args.block in KNOWN_BLOCKS:
        if args.kind == "tree":
            raise ConfigError(f"--block={args.block} is a graph and has no derivation tree; see --kind.")
        graph = KNOWN_BLOCKS[args.block]
        return draw_network(graph, "linear"), equations(graph), args.block
    if args.block is not None:
        typed = typed_seed(args.block, args.input or (3, 64, 64))
        drawing = draw_tree(typed) if args.kind == "tree" else draw_derivation(typed)
        return drawing, describe_derivation(typed), args.block
    if args.space is None:
        raise ConfigError("Name what is to be drawn: --block=NAME or --space=NAME; see --help.")
    made = make_space(args)
    candidate = next(draw_candidates(made.space, args.seed, 1))
    name = f"{args.space}, seed {args.seed}"
    status = int(made.space.status(candidate))
    if status:
        raise ConfigError(f"--seed={args.seed}: the sample is not valid: {made.space.reasons[status]}.")
    if args.kind == "tree":
        return draw_tree(typed_candidate(made, candidate)), "", name
    return made.space.drawing(candidate), made.space.describe(candidate), name


def typed_candidate(made: Made, candidate: PyTree) -> Typed:
    """Returns a candidate of einspace with its shapes."""
    if made.space.name != "einspace":
        raise ConfigError(f"--space={made.space.name} has no derivation trees; see --kind.")
    shape = made.tasks[0].in_shape
    grammar = make_einspace_grammar(num_axes=len(shape))
    return infer(to_tree(grammar, candidate), state_of(shape), rules=made.settings["rules"], grammar=grammar)


def _inference(made: Made) -> Callable[[PyTree], space_check.Built] | None:
    """Returns what is inferred of candidates' networks, None for a space that infers nothing."""
    if made.space.name != "einspace":
        return None

    def built(candidate: PyTree) -> space_check.Built:
        typed = typed_candidate(made, candidate)
        return space_check.Built(make_backbone(typed), typed.after.shape, typed.parameters)

    return built


def _tracked(items: Iterable[Any], total: int, what: str) -> Iterable[Any]:
    """Yields items; on a terminal, with how far it is."""
    console = rich.console.Console(stderr=True)
    if not console.is_terminal:
        return items
    return rich.progress.track(items, what, total, console=console, transient=True)


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="space.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)

    def command(name: str, run: Callable[[argparse.Namespace], int], about: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=about.partition(":")[0], description=about)
        made.set_defaults(run=run)
        return made

    def add_seed(made: argparse.ArgumentParser) -> None:
        made.add_argument("--seed", type=whole(0), default=0, help="of all that is drawn (default 0)")

    def add_input(made: argparse.ArgumentParser, more: str = "") -> None:
        made.add_argument("--input", type=shape, metavar="SHAPE", help=f"shape of the input{more}")

    def add_outputs(made: argparse.ArgumentParser) -> None:
        made.add_argument("--outputs", type=whole(1), default=10, help="outputs of the head (default 10)")

    def add_space(made: argparse.ArgumentParser, required: bool = True) -> None:
        made.add_argument("--space", choices=sorted(SPACES), required=required, help="the space")
        made.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help="a setting of the space, a key of a config's section; may be repeated",
        )
        add_input(made, ": CxHxW or CxL for einspace (default 3x64x64), TIMExFEATURES for elenas")
        add_outputs(made)
        add_seed(made)

    made = command("sample", sample, "Draws candidates and shows them, with their statuses.")
    add_space(made)
    made.add_argument("--n", type=whole(1), default=1, help="how many (default 1)")
    made.add_argument("--json", action="store_true", help="one JSON object a line")

    made = command(
        "check",
        check,
        "Draws candidates and mutates each: all must be valid and new, survive JSON, and be built with the "
        "shapes and parameters that are inferred (traced, not run). The exit status is 1 if one fails.",
    )
    add_space(made)
    made.add_argument("--n", type=whole(1), default=100, help="how many (default 100)")
    made.add_argument(
        "--starts",
        action="store_true",
        help="mutates the architectures of --set 'seeds=(\"NAME\", ...)', in turn, in place of samples",
    )

    known = f"{', '.join(GRAMMARS)}, or a file of rules like 'S -> a S [0.3] | b [0.7]'"
    made = command("count", count, "Counts the derivations of a grammar exactly; those that can be drawn.")
    made.add_argument("--grammar", required=True, help=known)
    made.add_argument("--max_depth", type=whole(1), default=5, help="if there are infinitely many")
    made.add_argument("--max_nodes", type=whole(1), default=12, help="if there are infinitely many")

    made = command(
        "analyse",
        analyse,
        "Shows the expectation matrix of a grammar, its spectral radius, expected numbers of terminals, "
        "critical probabilities, and non-terminals that are unreachable or never end.",
    )
    made.add_argument("--grammar", required=True, help=known)

    blocks = f"of einspace: {', '.join(SEEDS)}; of elenas: {', '.join(KNOWN_BLOCKS)}"
    made = command("parameters", parameters, "Counts the parameters of a published architecture.")
    made.add_argument("--block", required=True, help=blocks)
    add_input(made, " (default 3x64x64, or 32x7 for elenas)")
    add_outputs(made)
    made.add_argument("--hidden", type=whole(1), default=64, help="width of a block of elenas (default 64)")

    made = command(
        "stats",
        stats,
        "Shows how large drawn architectures of einspace are, beside the published numbers (table 10).",
    )
    made.add_argument("--p", type=probabilities, default=[0.9, 0.7, 0.5], help="like 0.9,0.7,0.5")
    made.add_argument("--n", type=whole(1), default=2000, help="samples of each (default 2000)")
    made.add_argument("--rules", choices=("strict", "compat"), default="compat")
    made.add_argument("--max_nodes", type=whole(0), default=0, help="of a derivation; 0 is no limit")
    add_input(made, " (default 3x64x64)")
    add_seed(made)

    made = command("draw", draw_picture, "Draws a published architecture, or the first sample of a seed.")
    made.add_argument("--block", choices=(*SEEDS, *KNOWN_BLOCKS), metavar="NAME", help=blocks)
    add_space(made, required=False)
    made.add_argument(
        "--kind",
        choices=("network", "tree", "text"),
        default="network",
        help="the network as a graph, the derivation as a tree, or the description",
    )
    made.add_argument("--out", metavar="FILE", help="FILE.svg or FILE.png")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    args = make_parser().parse_args(arguments)
    try:
        return args.run(args)
    except (ConfigError, RunError, ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
