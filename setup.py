"""Build settings that TOML cannot express: the compiled modules of ``ext/``.

Every ``ext/nearcache/*.pyx`` becomes the module of the same name in the package.
``NEARCACHE_SANITIZE=1`` builds them with AddressSanitizer and UBSan, with the store's own assertions on, and with
allocations that tests can make fail; ``NEARCACHE_SANITIZE=thread`` with ThreadSanitizer instead.
"""

import multiprocessing
import os
import sysconfig
from glob import glob
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

PROCESSORS = os.cpu_count() or 1

# The sdist takes up exactly what an extension names, so headers and .pxd files are listed as dependencies.
DEPENDS = sorted(glob("ext/nearcache/*.pxd") + glob("ext/nearcache/*.pyx") + glob("ext/include/nearcache/*.h"))

# Without debug information, which is most of what a wheel would weigh, and a third of the time that it takes to build.
COMPILE = ["-g0", "-fno-plt", "-std=c11", "-fno-strict-aliasing", "-fvisibility=hidden"]
if "-O" not in os.environ.get("CFLAGS", ""):  # what is said there comes first, and would not hold
    COMPILE.insert(0, "-O3")
LINK: list[str] = []
if SANITIZE := os.environ.get("NEARCACHE_SANITIZE"):
    DEBUG = ["-DNEARCACHE_ASSERT=1", "-DNEARCACHE_MAPPED=0"]
    FLAGS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    if SANITIZE == "thread":
        FLAGS = ["-fsanitize=thread"]
    else:  # the faults are for one thread
        DEBUG += ["-DNEARCACHE_FAULTS=1"]
    COMPILE = ["-O1", "-g", "-std=c11", "-fno-strict-aliasing", "-fno-omit-frame-pointer", *DEBUG, *FLAGS]
    LINK = FLAGS

if sysconfig.get_config_var("Py_GIL_DISABLED"):  # threads run at the same time
    COMPILE += ["-DNEARCACHE_THREADS=1"]

extensions = [
    Extension(
        f"nearcache.{Path(path).stem}",
        [path],
        include_dirs=["ext/include"],
        depends=DEPENDS,
        extra_compile_args=COMPILE,
        extra_link_args=LINK,
    )
    for path in sorted(glob("ext/nearcache/*.pyx"))
]

# Cython would add __test__ and pickling methods that the stubs rightly do not have.
DIRECTIVES = {
    "language_level": 3,
    "autotestdict": False,
    "auto_pickle": False,
    "freethreading_compatible": True,
}


def translators() -> int:
    """Return how many modules may be translated at the same time; 0: no processes, for want of a writable /dev/shm."""
    try:
        multiprocessing.Lock()
    except (ImportError, OSError):
        return 0
    return PROCESSORS


class Build(build_ext):
    """Translates into C when something is compiled, all modules at the same time: an sdist needs no C."""

    def run(self) -> None:
        """Translate, then compile."""
        translated = cythonize(
            self.extensions, include_path=["ext"], build_dir="build/cython", compiler_directives=DIRECTIVES,
            nthreads=translators(),
        )  # fmt: skip
        sources = {each.name: each.sources for each in translated}
        for extension in self.extensions:
            extension.sources = sources[extension.name]
        super().run()


if __name__ == "__main__":  # where processes are not forked, each imports this again
    setup(ext_modules=extensions, cmdclass={"build_ext": Build}, options={"build_ext": {"parallel": PROCESSORS}})
