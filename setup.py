"""Build of the compiled part: one table of extensions, OpenMP where a test compile links it.

Everything else about the package is in pyproject.toml. Environment, for developers:

- ``Z4AI_ONLY``: build only the extensions of these names (separated by spaces)
- ``Z4AI_NO_OPENMP``: set to anything to build without OpenMP
- ``Z4AI_EXTRA_CFLAGS``, ``Z4AI_EXTRA_LDFLAGS``: appended to every compile and link
"""

from __future__ import annotations

import os
import platform
import tempfile
from pathlib import Path

import numpy as np
from Cython.Build import cythonize
from setuptools import Distribution, Extension, setup  # before distutils, which it brings
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError, SetupError

from distutils.command.install_data import install_data  # isort: skip

FAST = Path("z4ai") / "_fast"

# name, uses OpenMP. Kernels are headers under z4ai/_fast/c, compiled into the extensions that
# include them.
EXTENSIONS = [
    ("_dispatch", False),
    ("_threads", True),
    ("planes", False),
    ("hashing", False),
    ("literals", False),
    ("contexts", False),
    ("symbols", False),
    ("models", False),
    ("differences", False),
    ("structure", False),
    ("blocks", False),
    ("sparse", False),
    ("lowrank", False),
    ("repeats", False),
    ("chunks", True),
]

OPENMP_PROBE = "#include <omp.h>\nint main(void) { return omp_get_max_threads() > 0 ? 0 : 1; }\n"


class BuildExt(build_ext):
    """Compile at -O3, with OpenMP if this compiler and linker have it."""

    def finalize_options(self) -> None:
        super().finalize_options()
        if self.parallel is None:
            self.parallel = os.cpu_count()

    def build_extensions(self) -> None:
        unix = self.compiler.compiler_type == "unix"
        # Python's own flags ask for debug information: most of a wheel, and no use to its users.
        compile_args = ["-O3", "-std=c11", "-fno-strict-aliasing", "-g0"] if unix else ["/O2"]
        compile_args += os.environ.get("Z4AI_EXTRA_CFLAGS", "").split()
        link_args = os.environ.get("Z4AI_EXTRA_LDFLAGS", "").split()
        openmp = self._openmp_flags()
        for ext, (_, wants_openmp) in zip(self.extensions, self._rows(), strict=True):
            ext.extra_compile_args = compile_args + (openmp[0] if wants_openmp else [])
            ext.extra_link_args = link_args + (openmp[1] if wants_openmp else [])
        super().build_extensions()

    def _rows(self) -> list[tuple[str, bool]]:
        table = dict(EXTENSIONS)
        names = [ext.name.rpartition(".")[2] for ext in self.extensions]
        return [(name, table[name]) for name in names]

    def _openmp_flags(self) -> tuple[list[str], list[str]]:
        if os.environ.get("Z4AI_NO_OPENMP"):
            return [], []
        if self.compiler.compiler_type != "unix":
            return ["/openmp"], []
        candidates = [(["-fopenmp"], ["-fopenmp"])]
        if platform.system() == "Darwin":
            candidates.append((["-Xpreprocessor", "-fopenmp"], ["-lomp"]))
        for compile_args, link_args in candidates:
            if self._links(compile_args, link_args):
                return compile_args, link_args
        self.warn("OpenMP not found: z4ai will use one thread")
        return [], []

    def _links(self, compile_args: list[str], link_args: list[str]) -> bool:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "probe.c"
            source.write_text(OPENMP_PROBE)
            try:
                objects = self.compiler.compile(
                    [str(source)], output_dir=folder, extra_postargs=compile_args
                )
                self.compiler.link_executable(
                    objects, str(Path(folder) / "probe"), extra_postargs=link_args
                )
            except (CompileError, LinkError, OSError):
                return False
        return True


class Z4aiDistribution(Distribution):
    """Say by the name that `editable_wheel` asks for, too, that there are data files."""

    def has_data(self) -> bool:
        return bool(self.has_data_files())


class InstallData(install_data):
    """Put `z4ai_hf.pth` where Python looks for such files when it starts.

    Data files go into wheels and editable wheels alike, but from there to the root of the
    environment. Their folder in a wheel has a sister whose content goes beside the packages.
    """

    def run(self) -> None:
        folder = Path(self.install_dir)
        if folder.name != "data" or folder.parent.suffix != ".data":
            raise SetupError(f"{folder} is not the data of a wheel: build one, by pip")
        self.install_dir = str(folder.with_name("purelib"))
        super().run()


def extensions(names: list[str] | None = None) -> list[Extension]:
    headers = sorted(str(path) for path in (FAST / "c").glob("*.h"))
    return [
        Extension(
            f"z4ai._fast.{name}",
            [str(FAST / f"{name}.pyx")],
            include_dirs=[str(FAST / "c"), np.get_include()],
            define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
            depends=headers,
        )
        for name, _ in EXTENSIONS
        if names is None or name in names
    ]


def main() -> None:
    names = os.environ.get("Z4AI_ONLY", "").split() or None
    setup(
        ext_modules=cythonize(
            extensions(names),
            compiler_directives={"language_level": 3, "freethreading_compatible": True},
        ),
        data_files=[("", ["z4ai_hf.pth"])],
        distclass=Z4aiDistribution,
        cmdclass={"build_ext": BuildExt, "install_data": InstallData},
    )


main()
