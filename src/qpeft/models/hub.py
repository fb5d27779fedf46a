"""Names that no folder has: asked for at the Hub once, where transformers would try again and again."""

from __future__ import annotations

from qpeft.errors import ModelError

SECONDS = 10.0
"""That the Hub may take to answer."""


def require_on_hub(name: str) -> None:
    """Raises: ModelError if the name can be none of the Hub's, or the Hub has no such model, or cannot be asked.

    Nothing is asked if the model is in the cache of the Hub; whether the user may read it is found out by loading it.
    """
    from huggingface_hub import (  # noqa: PLC0415
        constants,
        get_hf_file_metadata,
        hf_hub_url,
        try_to_load_from_cache,
    )
    from huggingface_hub.errors import (  # noqa: PLC0415
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
    )

    try:
        if isinstance(try_to_load_from_cache(name, "config.json"), str):
            return
        if constants.HF_HUB_OFFLINE:
            raise ModelError(f"{name} is not in the cache of the Hub, and HF_HUB_OFFLINE forbids to ask for it.")
        get_hf_file_metadata(hf_hub_url(name, "config.json"), timeout=SECONDS)
    except HFValidationError as error:
        raise ModelError(f"{name!r} can be no name on the Hub either: letters, digits, '-', '_', '.'.") from error
    except GatedRepoError:
        return  # it is there, and transformers says who may read it
    except RepositoryNotFoundError as error:
        raise ModelError(f"The Hub has no model {name}, or only for those who log in (hf auth login).") from error
    except HfHubHTTPError:
        return  # it answers; what it says of the files, transformers says better
    except ModelError:
        raise
    except Exception as error:  # of whichever HTTP client this version of the Hub's library has
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(f"The Hub cannot be asked for {name}: {reason}.") from error
