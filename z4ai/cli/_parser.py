"""The command line: its words, their help, and what they may be."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from z4ai import __version__
from z4ai._fast import _dispatch, _threads
from z4ai.dtypes import is_auto, resolve
from z4ai.options import EFFORTS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["make_parser", "parse"]

_EPILOG = """\
exit status: 0 done; 1 bad data (damaged, not z4ai's, or of a version not known); 2 wrong usage;
3 a file or the system failed (missing, no permission, disk full); 130 interrupted; 141 the reader
of a pipe went away; 143 terminated
"""


def _dtype(text: str) -> str:
    try:
        if not is_auto(text):
            resolve(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _shape(text: str) -> tuple[int, ...]:
    extents = text.lower().replace("x", ",").split(",")
    if not all(part.isascii() and part.isdecimal() and len(part) < 20 for part in extents):
        raise argparse.ArgumentTypeError(f"expected extents such as 4096x1024, not {text!r}")
    return tuple(map(int, extents))


def _threads_count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text[:9]) > 0):
        raise argparse.ArgumentTypeError(f"expected a positive number, not {text!r}")
    return min(int(text[:9]), _threads.MAX_THREADS)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise argparse.ArgumentTypeError(f"expected a number, not {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found < 1e9:
        raise argparse.ArgumentTypeError(f"expected seconds, not {text!r}")
    return found


class _Version(argparse.Action):
    """Print the version and how this installation works on this machine."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        help_ = "print version, instruction set, OpenMP and threads, and exit"
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help=help_)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(f"z4ai {__version__}")
        print(f"isa {_dispatch.current()} (of {', '.join(_dispatch.runnable())})")
        print(f"openmp {'yes' if _threads.openmp() else 'no'}")
        print(f"threads {_threads.effective(None, _threads.MAX_THREADS)}")
        parser.exit()


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of `z4ai`."""
    parser = argparse.ArgumentParser(
        prog="z4ai",
        description="Lossless compression of AI model weights.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version)
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)

    files = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    files.add_argument("files", nargs="+", metavar="file", help="input; - is standard input")
    told = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    told.add_argument(
        "--json", action="store_true", help="print one JSON object a file instead of text"
    )
    told.add_argument(
        "-q", "--quiet", action="store_true", help="no progress and no report, only errors"
    )
    threads = argparse.ArgumentParser(add_help=False)
    threads.add_argument(
        "--threads",
        type=_threads_count,
        metavar="n",
        help="default: Z4AI_NUM_THREADS, or the processors this process may use",
    )
    output = argparse.ArgumentParser(add_help=False)
    output.add_argument("-o", "--output", metavar="path", help="of one input; - is standard output")
    output.add_argument(
        "-f", "--force", action="store_true", help="overwrite existing output; write to a terminal"
    )

    effort = argparse.ArgumentParser(add_help=False)
    effort.add_argument(
        "--effort",
        choices=[*EFFORTS, "default"],
        help="decode speed against size (default: balanced)",
    )

    def add(
        name: str,
        text: str,
        *parents: argparse.ArgumentParser,
        to: Any = commands,
        inputs: argparse.ArgumentParser = files,
    ) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = to.add_parser(
            name,
            help=text[0].lower() + text[1:-1],
            description=text,
            parents=[inputs, told, *parents],
            allow_abbrev=False,
        )
        return made

    compress = add(
        "compress",
        "Compress a .safetensors file to a .zstn container, anything else to a .z4ai frame.",
        output,
        threads,
        effort,
    )
    compress.add_argument(
        "--dtype",
        type=_dtype,
        help="type of the elements of a file that is not .safetensors: bf16, fp16, fp32, ..., "
        "opaque, or auto, which guesses (default: auto)",
    )
    compress.add_argument(
        "--shape",
        type=_shape,
        metavar="extents",
        help="shape of the matrix or tensor that such a file holds, as in 4096x1024: makes it "
        "smaller; needs --dtype",
    )
    compress.add_argument(
        "--raw", action="store_true", help="take a .safetensors file like any other file"
    )
    add("decompress", "Restore what was compressed, byte for byte.", output, threads)
    add("info", "Describe frames and containers without decoding them.")
    add("ls", "List the tensors of .zstn containers, or of .safetensors files.")
    verify = add("verify", "Decode everything and compare it with its checksums.", threads)
    verify.add_argument(
        "--base",
        action="append",
        metavar="path",
        help="what deltas were made against; where that is a model delta itself, once more for its "
        "own base",
    )
    _add_folders(add, threads, effort)
    _add_delta(commands, add, output, threads, effort)
    _add_series(commands, add, output, threads, effort)
    return parser


def _add_folders(
    add: Callable[..., argparse.ArgumentParser],
    threads: argparse.ArgumentParser,
    effort: argparse.ArgumentParser,
) -> None:
    """Add the commands that work on folders of models."""
    folders = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    folders.add_argument("files", nargs="+", metavar="folder", help="folder of the model")
    names = argparse.ArgumentParser(add_help=False)
    names.add_argument(
        "-o", "--output", metavar="folder", help="of one input (default: beside the originals)"
    )
    names.add_argument(
        "--in-place", action="store_true", help="remove each original once it is replaced"
    )
    variant = names.add_mutually_exclusive_group()
    variant.add_argument("--variant", default="z4ai", help="part of the names (default: z4ai)")
    variant.add_argument(
        "--no-variant",
        action="store_const",
        const=None,
        dest="variant",
        help="keep the names, for loaders that know no variants",
    )
    names.add_argument(
        "--link", action="store_true", help="link other files to the output, where possible"
    )
    names.add_argument(
        "--follow-links", action="store_true", help="take files that links outside lead to"
    )
    names.add_argument(
        "-f", "--force", action="store_true", help="replace files that were made of something else"
    )
    text = 'Compress the weights of models, for from_pretrained(folder, variant="z4ai").'
    new = add("compress-model", text, names, threads, effort, inputs=folders)
    new.add_argument("--no-verify", action="store_true", help="do not decode what was written")
    text = "Restore the folders that compress-model compressed, byte for byte."
    add("decompress-model", text, names, threads, inputs=folders)


def _add_delta(
    commands: Any,
    add: Callable[..., argparse.ArgumentParser],
    output: argparse.ArgumentParser,
    threads: argparse.ArgumentParser,
    effort: argparse.ArgumentParser,
) -> None:
    """Add `z4ai delta` and its commands."""
    text = "Store a file as what distinguishes it from another."
    help_ = text[0].lower() + text[1:-1]
    delta = commands.add_parser("delta", help=help_, description=text, allow_abbrev=False)
    actions = delta.add_subparsers(dest="action", metavar="action", required=True)

    def two(what: str, help_: str) -> argparse.ArgumentParser:
        inputs = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        inputs.add_argument("files", nargs=1, metavar=what, help=help_)
        inputs.add_argument(
            "base",
            nargs="+",
            help="what it is stored against; where that is a model delta itself, behind it its own "
            "base",
        )
        return inputs

    make = add(
        "make",
        "Make a delta: .z4dm of a .safetensors file against a model, .z4dl of anything else.",
        output,
        threads,
        effort,
        to=actions,
        inputs=two("target", "file to store; - is standard input"),
    )
    make.add_argument(
        "--dtype",
        type=_dtype,
        help="type of the elements of files that are not .safetensors: bf16, fp16, fp32, ..., "
        "opaque, or auto, which guesses (default: auto)",
    )
    make.add_argument(
        "--raw", action="store_true", help="take .safetensors files like any other files"
    )
    make.add_argument(
        "--verify", action="store_true", help="restore the target before the delta gets its name"
    )
    apply = add(
        "apply",
        "Restore what a delta was made of, byte for byte; another base is refused.",
        output,
        threads,
        to=actions,
        inputs=two("delta", "delta to apply; - is standard input"),
    )
    info = add("info", "Describe deltas without their base.", to=actions)
    for action in (make, apply, info):
        action.set_defaults(command=action.prog.partition(" ")[2])


def _add_series(
    commands: Any,
    add: Callable[..., argparse.ArgumentParser],
    output: argparse.ArgumentParser,
    threads: argparse.ArgumentParser,
    effort: argparse.ArgumentParser,
) -> None:
    """Add `z4ai series` and its commands."""
    text = "Keep a run of checkpoints in a folder, as keyframes and deltas."
    help_ = text[0].lower() + text[1:-1]
    series = commands.add_parser("series", help=help_, description=text, allow_abbrev=False)
    actions = series.add_subparsers(dest="action", metavar="action", required=True)

    def inside(what: str, help_: str) -> argparse.ArgumentParser:
        inputs = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        inputs.add_argument("folder", help="folder of the series")
        inputs.add_argument("files", nargs="+", metavar=what, help=help_)
        return inputs

    whole = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    whole.add_argument("files", nargs="+", metavar="folder", help="folder of the series")
    wait = argparse.ArgumentParser(add_help=False)
    wait.add_argument(
        "--timeout",
        type=_seconds,
        metavar="seconds",
        help="how long to wait for another writer (default: until it is done)",
    )
    new = add(
        "add",
        "Add .safetensors files, each against the step that makes it smallest, or as a keyframe.",
        threads,
        effort,
        wait,
        to=actions,
        inputs=inside("file", "checkpoint to add"),
    )
    new.add_argument("--name", help="name of the step (default: that of the file)")
    new.add_argument(
        "--step",
        type=_count,
        metavar="n",
        help="its number in the run (default: that of a name like step00050)",
    )
    new.add_argument(
        "--stream",
        help="what it is a step of: weights, their copies, ... (default: told by its tensors)",
    )
    kinds = new.add_mutually_exclusive_group()
    kinds.add_argument(
        "--keyframe", action="store_true", default=None, help="store it without a base"
    )
    kinds.add_argument(
        "--delta",
        action="store_false",
        dest="keyframe",
        default=None,
        help="store it against a base even where that does not pay",
    )
    new.add_argument(
        "--max-depth",
        type=_count,
        metavar="n",
        help="how many steps may have to be read beside one, from now on (default: 8)",
    )
    new.add_argument(
        "--no-verify", action="store_true", help="do not restore what was written at once"
    )
    steps = inside("name", "name of a step")
    back = add(
        "restore", "Restore steps, byte for byte.", output, threads, to=actions, inputs=steps
    )
    listed = add("ls", "List the steps of series.", to=actions, inputs=whole)
    text = "Remove steps; what is stored against them is stored anew first."
    gone = add("drop", text, threads, wait, to=actions, inputs=steps)
    text = "Restore every step to nowhere and compare it with its digest."
    checked = add("verify", text, threads, to=actions, inputs=whole)
    for action in (new, back, listed, gone, checked):
        action.set_defaults(command=action.prog.partition(" ")[2])


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; what is wrong with it ends the program with status 2."""
    parser = make_parser()
    args = parser.parse_args(argv)
    if getattr(args, "output", None) is not None and len(args.files) > 1:
        parser.error("--output needs a single input")
    for option in ("name", "step"):
        if getattr(args, option, None) is not None and len(args.files) > 1:
            parser.error(f"--{option} needs a single input")
    if [*args.files, *(getattr(args, "base", None) or ())].count("-") > 1:
        parser.error("standard input can be read once only")
    try:
        _threads.default_threads()
    except ValueError as error:
        parser.error(str(error))
    return args
