"""The command line: its words, their help, and what they may be."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from z4ai import __version__
from z4ai._fast import _dispatch, _threads
from z4ai.dtypes import is_auto, resolve
from z4ai.options import EFFORTS

if TYPE_CHECKING:
    from collections.abc import Sequence

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

    common = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    common.add_argument("files", nargs="+", metavar="file", help="input; - is standard input")
    common.add_argument(
        "--json", action="store_true", help="print one JSON object a file instead of text"
    )
    common.add_argument(
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

    def add(name: str, text: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=text[0].lower() + text[1:-1],
            description=text,
            parents=[common, *parents],
            allow_abbrev=False,
        )

    compress = add(
        "compress",
        "Compress a .safetensors file to a .zstn container, anything else to a .z4ai frame.",
        output,
        threads,
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
        "--effort",
        choices=[*EFFORTS, "default"],
        help="decode speed against size (default: balanced)",
    )
    compress.add_argument(
        "--raw", action="store_true", help="take a .safetensors file like any other file"
    )
    add("decompress", "Restore what was compressed, byte for byte.", output, threads)
    add("info", "Describe frames and containers without decoding them.")
    add("ls", "List the tensors of .zstn containers, or of .safetensors files.")
    add("verify", "Decode everything and compare it with its checksums.", threads)
    return parser


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; what is wrong with it ends the program with status 2."""
    parser = make_parser()
    args = parser.parse_args(argv)
    if getattr(args, "output", None) is not None and len(args.files) > 1:
        parser.error("--output needs a single input")
    if args.files.count("-") > 1:
        parser.error("standard input can be read once only")
    try:
        _threads.default_threads()
    except ValueError as error:
        parser.error(str(error))
    return args
