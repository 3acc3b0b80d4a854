"""Build of the one extension, fastsoftmax._native; everything else is in pyproject.toml.

Environment variables:

FASTSOFTMAX_NO_OPENMP=1
    build single-threaded even where the compiler has OpenMP.
FASTSOFTMAX_SANITIZE=address,undefined
    build with these sanitizers (CONTRIBUTING.md says how to run it).
FASTSOFTMAX_ISAS=avx512
    build for these instruction sets alone (commas between them): what one machine takes is built in a
    third of the time, and runs on no other.
"""

import os
import sys
import tempfile
from glob import glob
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError
from setuptools.modified import newer_group

if sys.platform == "win32":
    sys.exit("fastsoftmax builds on Linux and macOS; Windows is refused until it is tested there.")

# No ISA flags: the files of src/isa/ open their own target regions. Never -ffast-math, above all
# not at link time: GCC then links a start-up object that flushes subnormals to zero in the whole
# process of whoever imports the library.
COMPILE_ARGS = [
    "-std=c++17",
    "-O2",  # the vectors are written out: -O3 takes half as long again to compile, to the same times
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=off",  # a fused multiply-add is written out, so that a result has the same bits
    "-fvisibility=hidden",
    "-g0",  # Python's own flags have -g: for these templates ten times the code in debug symbols
    "-fno-lto",  # some distributions' Pythons ask for it: twice the compile time, nothing gained
    "-pthread",
]
LINK_ARGS = ["-fno-lto", "-pthread"]

# The file of an ISA is compiled once for each of them (src/kernels/table.h says why).
DTYPES = ("float32", "float64", "float16", "bfloat16")
ISAS = [Path(source).stem for source in sorted(glob("src/isa/*.cpp"))]
chosen_isas = [name for name in os.environ.get("FASTSOFTMAX_ISAS", "").split(",") if name] or ISAS
if not set(chosen_isas) <= set(ISAS):
    sys.exit(f"FASTSOFTMAX_ISAS: expected some of {','.join(ISAS)}, got {os.environ['FASTSOFTMAX_ISAS']}")

OPENMP_PROGRAM = """
#include <omp.h>
int main() {
    int sum = 0;
    #pragma omp parallel reduction(+ : sum)
    sum += omp_get_num_threads();
    return sum == 0;
}
"""


def openmp_candidates():
    """Pairs of compile and link arguments to try, in this order."""
    yield ["-fopenmp"], ["-fopenmp"]
    if sys.platform == "darwin":
        # Apple's Clang knows OpenMP only behind the preprocessor and ships no runtime of its own.
        apple = ["-Xpreprocessor", "-fopenmp"]
        yield apple, ["-lomp"]
        for prefix in ("/opt/homebrew/opt/libomp", "/usr/local/opt/libomp", "/opt/local"):
            yield [*apple, f"-I{prefix}/include"], [f"-L{prefix}/lib", "-lomp"]


def find_openmp(compiler):
    """Compile and link arguments with which an OpenMP program builds, or None."""
    for compile_args, link_args in openmp_candidates():
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "probe.cpp")
            source.write_text(OPENMP_PROGRAM)
            try:
                objects = compiler.compile([str(source)], output_dir=folder, extra_postargs=compile_args)
                compiler.link_executable(
                    objects,
                    "probe",
                    output_dir=folder,
                    extra_postargs=link_args,
                    target_lang="c++",
                )
            except (CompileError, LinkError):
                continue
            return compile_args, link_args
    return None


class BuildNative(build_ext):
    """Adds the compiler's abilities to the extension and compiles its sources in parallel."""

    openmp_args = ()  # for the one file that knows threads

    def build_extension(self, ext):
        self.add_openmp(ext)
        self.add_sanitizers(ext)
        self.rebuild_when_configuration_changes(ext)
        # In the build folder, so that no generated file lies beside the .pyx.
        ext.sources = cythonize(
            [ext],
            build_dir=self.build_temp,
            force=self.force,
            compiler_directives={
                "language_level": 3,
                "binding": True,
                "boundscheck": False,
                "wraparound": False,
                "freethreading_compatible": True,
            },
        )[0].sources
        self.compile_in_parallel(ext.depends)
        super().build_extension(ext)

    def add_openmp(self, ext):
        if os.environ.get("FASTSOFTMAX_NO_OPENMP", "0") not in ("", "0"):
            return
        found = find_openmp(self.compiler)
        if found is None:
            self.warn("no OpenMP found: fastsoftmax is built single-threaded")
            return
        self.openmp_args = [*found[0], "-DFASTSOFTMAX_OPENMP=1"]
        ext.extra_link_args += found[1]

    def add_sanitizers(self, ext):
        names = os.environ.get("FASTSOFTMAX_SANITIZE")
        if names:
            flags = [f"-fsanitize={names}", "-fno-sanitize-recover=all", "-g"]
            # Optimised further, the checks in these templates take the compiler longer (at -O3, four times as long).
            ext.extra_compile_args += [*flags, "-fno-omit-frame-pointer", "-O1"]
            ext.extra_link_args += flags

    def rebuild_when_configuration_changes(self, ext):
        """Make a file that holds every flag a dependency.

        setuptools compares times alone: without it, a build with other flags would pass off the
        objects of the one before as its own.
        """
        configuration = repr((vars(self.compiler), vars(ext), self.openmp_args))
        stamp = Path(self.build_temp, "configuration.txt")
        if not stamp.exists() or stamp.read_text() != configuration:
            stamp.parent.mkdir(parents=True, exist_ok=True)
            stamp.write_text(configuration)
        ext.depends.append(str(stamp))

    def compile_in_parallel(self, depends):
        compile_one_by_one = self.compiler.compile
        jobs = self.parallel or os.cpu_count()

        def compile_outdated(source, dtype, output_dir, **options):
            if dtype:
                output_dir = str(Path(output_dir, dtype))
                options["macros"] = [*options["macros"], ("FASTSOFTMAX_DTYPE", dtype)]
            objects = self.compiler.object_filenames([source], output_dir=output_dir)
            if Path(source).name == "parallel.cpp":
                options["extra_postargs"] = [*options["extra_postargs"], *self.openmp_args]
            if self.force or newer_group([source, *depends], objects[0]):
                compile_one_by_one([source], output_dir=output_dir, **options)
            return objects

        def compile_all(sources, **options):
            tasks = [
                (source, dtype)
                for source in sources
                for dtype in (DTYPES if Path(source).parent.name == "isa" else [None])
            ]
            with ThreadPool(jobs) as pool:
                lists = pool.map(lambda task: compile_outdated(*task, **options), tasks, 1)
            return [name for names in lists for name in names]

        self.compiler.compile = compile_all


native = Extension(
    "fastsoftmax._native",
    ["fastsoftmax/_native.pyx", *sorted(glob("src/*.cpp")), *(f"src/isa/{name}.cpp" for name in chosen_isas)],
    depends=sorted(glob("src/**/*.h", recursive=True)),
    include_dirs=["src", np.get_include()],
    define_macros=[
        ("NPY_NO_DEPRECATED_API", "NPY_1_25_API_VERSION"),
        # The oldest NumPy that the extension imports under: 1.26 has the C API of 1.25.
        ("NPY_TARGET_VERSION", "NPY_1_25_API_VERSION"),
        *((f"FASTSOFTMAX_WITHOUT_{name.upper()}", "1") for name in ISAS if name not in chosen_isas),
    ],
    extra_compile_args=COMPILE_ARGS,
    extra_link_args=LINK_ARGS,
    language="c++",
)

setup(ext_modules=[native], cmdclass={"build_ext": BuildNative})
