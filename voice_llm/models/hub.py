"""Model files from the Hugging Face hub, through its own client and cache."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from ..errors import ModelFileError

__all__ = ["hub_file"]


def hub_file(repo: str, file: str, *, revision: str | None = None, sha256: str | None = None) -> Path:
    """Return a file of a hub repository from the local cache, downloading it first where it is not there.

    A file that is there is used without asking the hub for a newer one.
    ``HF_HOME``, ``HF_ENDPOINT``, ``HF_TOKEN`` and ``HF_HUB_OFFLINE`` have their usual effect.

    Args:
        repo: ``owner/name``.
        file: Path inside the repository.
        revision: Branch, tag or commit; the default branch otherwise.
        sha256: What the file's SHA-256 must be, in hexadecimal.

    Raises:
        ModelFileError: It cannot be had, or its checksum is another; the message says how to go on.
    """
    # Imported here: it takes half a second, and models from paths and packages do not need it.
    from huggingface_hub import errors, hf_hub_download

    try:
        try:
            # Not asking for news keeps a start without network fast: the client would retry for 20 seconds.
            path = Path(hf_hub_download(repo, file, revision=revision, local_files_only=True))
        except errors.LocalEntryNotFoundError:
            path = Path(hf_hub_download(repo, file, revision=revision))
    except Exception as error:  # the client raises its own, its HTTP library's and the system's errors
        raise ModelFileError(f"{_reason(error, repo, file, revision)}; {_ways_on(file)}") from error
    if sha256 is not None:
        _check_sha256(path, sha256.lower())
    return path


def _reason(error: Exception, repo: str, file: str, revision: str | None) -> str:
    from huggingface_hub import constants, errors

    where = f"{repo}@{revision}" if revision else repo
    reasons: list[tuple[Any, str]] = [
        (errors.HFValidationError, f"{repo!r} is not a hub repository's name, which is owner/name"),
        (errors.GatedRepoError, f"the hub repository {repo} wants its licence accepted and a token in HF_TOKEN"),
        (errors.RepositoryNotFoundError, f"the hub has no repository {repo}, or it is private and needs HF_TOKEN"),
        (errors.RevisionNotFoundError, f"the hub repository {repo} has no revision {revision!r}"),
    ]
    if constants.HF_HUB_OFFLINE:
        return f"{file} of {where} is not in the local cache, and HF_HUB_OFFLINE forbids fetching it"
    for kind, reason in reasons:
        if isinstance(error, kind):
            return reason
    if isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError):
        return f"the hub repository {where} has no file {file}"
    return f"{file} of {where} could not be fetched from {constants.ENDPOINT} ({type(error).__name__})"


def _ways_on(file: str) -> str:
    from huggingface_hub import constants

    return (
        f"fetch it on a machine that can and copy that machine's cache folder to {constants.HF_HUB_CACHE}, or place "
        f"{Path(file).name} anywhere here and name it with --model or as the profile's model.path"
    )


def _check_sha256(path: Path, expected: str) -> None:
    with path.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != expected:
        # The cache's entry is a link to a blob; with the blob gone, the file counts as not there.
        raise ModelFileError(
            f"{path.resolve()} has the SHA-256 {actual} where the profile wants {expected}; "
            "delete it to have it fetched again, or correct the profile"
        )
