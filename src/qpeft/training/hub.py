"""The adapter of a run in a repository of the Hub."""

from __future__ import annotations

from pathlib import Path

from qpeft.errors import OutputError, RecipeError

NOT_PUSHED = ["checkpoints/**", "tensorboard/**", ".*"]
"""What of a run's folder stays here: what only a resumed run needs, and what belongs to this machine."""


def require_login(repository: str) -> None:
    """Raises: RecipeError if nobody is logged in to the Hub, or it cannot be asked: before a run, not after it."""
    from huggingface_hub import HfApi  # noqa: PLC0415  (takes a moment to import)

    try:
        HfApi().whoami()
    except Exception as error:  # of whichever HTTP client this version of the Hub's library has
        reason = " ".join(str(error).split())[:300]
        raise RecipeError(
            f"'output.push_to_hub' is {repository}, and the Hub does not know you: {reason} Log in (hf auth login), or "
            "leave the key out and push later (hf upload)."
        ) from error


def push_adapter(folder: Path, repository: str) -> str:
    """Put adapter, card, figures and record into a repository, a private one if it is new; returns its address.

    Raises: OutputError if that fails; the folder stays as it is.
    """
    from huggingface_hub import HfApi  # noqa: PLC0415  (takes a moment to import)

    api = HfApi()
    try:
        # Private, since the record tells names of files and text of samples: its owner decides who else reads them.
        address = api.create_repo(repository, private=True, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, ignore_patterns=NOT_PUSHED)
    except Exception as error:  # as above
        reason = " ".join(str(error).split())[:300]
        raise OutputError(
            f"The run is finished and in {folder}, but was not pushed to {repository}: {reason} Push it again with: "
            f"hf upload {repository} {folder}"
        ) from error
    return str(address)
