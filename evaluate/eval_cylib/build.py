"""How the kernels are compiled: for this machine with OpenMP, else portably, else not at all."""

import sys

from setuptools.command.build_ext import build_ext as _build_ext
from setuptools.errors import CompileError

NATIVE = ["-O3", "-march=native", "-fopenmp"]
PORTABLE = ["-O3"]


class build_ext(_build_ext):  # noqa: N801 (setuptools names commands like this)
    """Try the flags from the fastest to the safest."""

    def build_extension(self, extension):
        if sys.platform == "win32":
            super().build_extension(extension)
            return
        for compile_args, link_args in (
            (NATIVE, ["-fopenmp"]),
            (PORTABLE + ["-fopenmp"], ["-fopenmp"]),
            (PORTABLE, []),
        ):
            extension.extra_compile_args, extension.extra_link_args = compile_args, link_args
            try:
                super().build_extension(extension)
                return
            except CompileError as error:
                failure = error
        raise failure
