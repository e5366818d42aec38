"""Generate ``voice_llm/_proto`` from the ``.proto`` files, or check that it is current (``--check``).

The modules are flat and import each other relatively, so that they neither claim a top-level package of their own nor
depend on ``sys.path``.
"""

from __future__ import annotations

import re
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

PROTO = Path(__file__).resolve().parent
TARGET = PROTO.parent / "voice_llm" / "_proto"
HEAD = '"""Generated from ``proto/`` by ``make proto``; never edited."""\n'


def generate() -> dict[str, str]:
    """Return the generated files, by name.

    Raises:
        SystemExit: A ``.proto`` file is wrong; protoc has said why.
    """
    sources = sorted(str(path.relative_to(PROTO)) for path in PROTO.rglob("*.proto"))
    made = {"__init__.py": HEAD}
    with tempfile.TemporaryDirectory() as folder:
        outputs = [f"--{kind}_out={folder}" for kind in ("python", "pyi", "grpc_python")]
        include = f"-I{files('grpc_tools') / '_proto'}"
        if protoc.main(["protoc", f"-I{PROTO}", include, *outputs, *sources]):
            raise SystemExit(1)
        for path in sorted(Path(folder).rglob("*.py*")):
            made[path.name] = _flat(path.read_text(encoding="utf-8"))
    return made


def _flat(code: str) -> str:
    """Make imports of other generated modules relative."""
    return re.sub(r"^from (?:sentiric|voice_llm)[\w.]* import (\w+_pb2)", r"from . import \1", code, flags=re.MULTILINE)


def main() -> None:
    """Write the files; with ``--check`` only say what differs, and fail."""
    made = generate()
    present = {path.name: path.read_text(encoding="utf-8") for path in TARGET.glob("*.py*")}
    if made == present:
        return
    if "--check" in sys.argv[1:]:
        names = sorted(name for name in made.keys() | present.keys() if made.get(name) != present.get(name))
        raise SystemExit(f"not current: {', '.join(names)}; run make proto")
    TARGET.mkdir(exist_ok=True)
    for name in present.keys() - made.keys():
        (TARGET / name).unlink()
    for name, code in made.items():
        (TARGET / name).write_text(code, encoding="utf-8")


if __name__ == "__main__":
    main()
