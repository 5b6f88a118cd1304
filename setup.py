"""Build step: the wheel carries the server, the worker and the demo in `stoker/_planes`, so that `stoker up` needs no checkout.

They stay out of site-packages' top level, where `server` and `worker` would shadow other people's modules; `stoker.cli.stack.planes`
puts the folder on the path of the processes that it starts. An editable install copies nothing: there they lie at the root.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
PLANES = ("alembic.ini", "migrations", "server", "worker")
DEMO = ("examples/demo_data.py", "examples/demo_use.py", "examples/digits.yaml", "examples/kjv_gpt.yaml")


def carried() -> Iterator[Path]:
    """Files below the root that travel in `stoker/_planes`. Raises FileNotFoundError: a wheel without them is never built."""
    for name in (*PLANES, *DEMO):
        path = ROOT / name
        if not path.exists():
            raise FileNotFoundError(f"{name} is missing: build from a checkout or from the sdist")
        for file in sorted(path.rglob("*")) if path.is_dir() else (path,):
            if file.is_file() and "__pycache__" not in file.parts:
                yield file.relative_to(ROOT)


class BuildWithPlanes(build_py):
    """Copies what is carried next to the package's modules, and lists it as a source, so that the sdist has it too."""

    def run(self) -> None:
        if not self.editable_mode:
            shutil.rmtree(
                Path(self.build_lib) / "stoker", ignore_errors=True
            )  # modules that an older build left would be packed again
        super().run()
        if not self.editable_mode:
            for source, target in self._carried():
                target.parent.mkdir(parents=True, exist_ok=True)
                self.copy_file(str(source), str(target))

    def get_source_files(self) -> list[str]:
        return [*super().get_source_files(), *map(str, carried())]

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        made = super().get_outputs(include_bytecode)
        return made if self.editable_mode else [*made, *(str(target) for _, target in self._carried())]

    def _carried(self) -> Iterator[tuple[Path, Path]]:
        for file in carried():
            yield ROOT / file, Path(self.build_lib, "stoker", "_planes", file)


setup(cmdclass={"build_py": BuildWithPlanes})
