"""What pyproject.toml cannot say: the compiled kernels, and where main.py goes in a wheel."""

import os
import sys

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.errors import CompileError

# A wheel for other machines is built with EMBER_REID_PORTABLE=1; the default uses the instructions
# of this processor.
NATIVE = [] if os.environ.get("EMBER_REID_PORTABLE") else ["-march=native"]
FLAGS = (["-O3", *NATIVE, "-fopenmp"], ["-O3", "-fopenmp"], ["-O3"])
KERNELS = "evaluate/eval_cylib"


class BuildKernels(build_ext):
    """Compile each kernel with the fastest flags that the compiler accepts."""

    def build_extension(self, ext):
        if sys.platform == "win32":
            return super().build_extension(ext)
        for flags in FLAGS:
            ext.extra_compile_args = flags
            ext.extra_link_args = [flag for flag in flags if flag == "-fopenmp"]
            try:
                return super().build_extension(ext)
            except CompileError as error:
                failure = error
        raise failure


class BuildModules(build_py):
    """Install the repository's main.py as `ember_reid.main`."""

    def find_modules(self):
        return [*super().find_modules(), ("ember_reid", "main", "main.py")]

    def run(self):
        # Makes build_py call find_modules.
        self.py_modules = self.py_modules or ["ember_reid.main"]
        super().run()


def kernel(name: str) -> Extension:
    return Extension(
        f"ember_reid.evaluate.eval_cylib.{name}",
        [f"{KERNELS}/{name}.pyx"],
        depends=[f"{KERNELS}/compact.h", f"{KERNELS}/items.pxi"],
        # Without a compiler the numpy implementation is used.
        optional=True,
    )


setup(
    ext_modules=[kernel(name) for name in ("nearest_cy", "rank_cy", "jaccard_cy")],
    cmdclass={"build_ext": BuildKernels, "build_py": BuildModules},
)
