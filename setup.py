"""The part of the build that must be computed: the native extension and what the compiler in use can do.

Environment variables, beside the usual CC, CFLAGS and LDFLAGS:

FASTNORM_OPENMP    auto (default) uses OpenMP if a small program links with it, 1 insists on it, 0 builds without it
FASTNORM_SANITIZE  sanitizers to build with, for example address,undefined
"""

import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import PlatformError

# The same bits from every compiler: no contraction to FMA, and a -ffast-math in CFLAGS is taken back.
FLAGS = [
    "-std=gnu11",
    "-O3",
    "-fno-fast-math",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fvisibility=hidden",
]

# (compile, link) of each compiler family that has OpenMP.
OPENMP = [(["-fopenmp"], ["-fopenmp"])]
if sys.platform == "darwin":  # Apple's clang has the pragmas but neither the driver option nor the library
    OPENMP.append((["-Xpreprocessor", "-fopenmp"], ["-lomp"]))

PLAIN = "int main(void) { return 0; }\n"
PYTHON = "#include <Python.h>\n" + PLAIN
PARALLEL = """\
#include <omp.h>
int main(void) {
  int n = 0;
#pragma omp parallel reduction(+ : n)
  n += omp_get_num_threads();
  return n < 1;
}
"""


class BuildExt(build_ext):
    """Ask the compiler first, then build."""

    def finalize_options(self) -> None:
        """Build anew every time: an object file does not tell which compiler, flags or OpenMP it came from."""
        super().finalize_options()
        self.force = True

    def build_extensions(self) -> None:
        """Refuse early and in one line what cannot work; add the flags that depend on the compiler."""
        compiler = " ".join(getattr(self.compiler, "linker_exe", None) or [self.compiler.compiler_type])
        if not self.links(PLAIN):
            raise PlatformError(
                f"fastnorm: no working C compiler: '{compiler}' cannot build an empty program; "
                "install gcc or clang (Debian: apt-get install gcc libc6-dev) or set CC"
            )
        if not self.links(PYTHON):
            version = f"{sys.version_info.major}.{sys.version_info.minor}"
            raise PlatformError(
                f"fastnorm: Python.h of Python {version} not found; install Python's headers "
                f"(Debian: apt-get install python{version}-dev)"
            )
        if not self.links(PLAIN, FLAGS):
            raise PlatformError(f"fastnorm: '{compiler}' does not know {' '.join(FLAGS)}; set CC to gcc or clang")
        for compile_args, link_args in (self.openmp(), self.sanitizers()):
            for extension in self.extensions:
                extension.extra_compile_args += compile_args
                extension.extra_link_args += link_args
        super().build_extensions()

    def build_extension(self, extension: Extension) -> None:
        """Compile the sources side by side: there are few, one per instruction set, and each takes long."""
        compile_ = self.compiler.compile

        def compile_all(sources: list[str], **kwargs: Any) -> list[str]:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                return [o for made in pool.map(lambda source: compile_([source], **kwargs), sources) for o in made]

        self.compiler.compile = compile_all
        try:
            super().build_extension(extension)
        finally:
            self.compiler.compile = compile_

    def openmp(self) -> tuple[list[str], list[str]]:
        """Compile and link flags for OpenMP; none if it is not wanted or, with auto, not there."""
        wanted = os.environ.get("FASTNORM_OPENMP") or "auto"
        if wanted not in ("auto", "0", "1"):
            raise PlatformError(f"fastnorm: FASTNORM_OPENMP is {wanted!r}; expected auto, 0 or 1")
        if wanted == "0":
            return [], []
        for flags in OPENMP:
            if self.links(PARALLEL, *flags):
                return flags
        if wanted == "1":
            raise PlatformError(
                "fastnorm: FASTNORM_OPENMP=1, but no OpenMP program links; install the compiler's OpenMP runtime "
                "(Debian: libgomp1 comes with gcc; for clang apt-get install libomp-dev)"
            )
        print("fastnorm: no OpenMP found, building for one thread")
        return [], []

    def sanitizers(self) -> tuple[list[str], list[str]]:
        """Compile and link flags for FASTNORM_SANITIZE; a finding ends the process."""
        names = os.environ.get("FASTNORM_SANITIZE")
        if not names:
            return [], []
        link = [f"-fsanitize={names}"]
        compile_ = [*link, "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g", "-O2"]
        if not self.links(PLAIN, compile_, link):
            raise PlatformError(f"fastnorm: FASTNORM_SANITIZE is {names!r}, but no program links with {link[0]}")
        return compile_, link

    def links(self, source: str, compile_args: list[str] | None = None, link_args: list[str] | None = None) -> bool:
        """Whether a C program compiles and links with the compiler in use."""
        if self.compiler.compiler_type != "unix":
            return False
        includes = [f"-I{directory}" for directory in self.include_dirs]
        with tempfile.TemporaryDirectory() as directory:
            c, o, exe = (str(Path(directory, name)) for name in ("probe.c", "probe.o", "probe"))
            Path(c).write_text(source, encoding="utf-8")
            compile_ = [*self.compiler.compiler_so, *includes, *(compile_args or []), "-c", c, "-o", o]
            link = [*self.compiler.linker_exe, o, "-o", exe, *(link_args or [])]
            try:
                return all(
                    subprocess.run(command, capture_output=True, check=False).returncode == 0
                    for command in (compile_, link)
                )
            except OSError:  # no such program
                return False


KERNELS, DOOR = Path("fastnorm/kernels"), Path("fastnorm/door")

setup(
    ext_modules=[
        Extension(
            "fastnorm._ops",
            sources=["fastnorm/_ops.pyx", *sorted(map(str, KERNELS.glob("*.c")))],
            depends=sorted(map(str, [*KERNELS.glob("*.h"), *DOOR.glob("*.pxi")])),
            include_dirs=[str(KERNELS), np.get_include()],
            define_macros=[
                ("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"),
                ("NPY_TARGET_VERSION", "NPY_2_0_API_VERSION"),
            ],
            extra_compile_args=list(FLAGS),
        )
    ],
    cmdclass={"build_ext": BuildExt},
)
