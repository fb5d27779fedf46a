"""The table of methods and features in docs/features.md, made from what the contracts found."""

import re
from importlib.metadata import distributions

from qpeft.errors import QpeftError

FEATURES = {
    "save": "`save_pretrained`, `PeftModel.from_pretrained`: equal to the last bit",
    "new_process": "... in a new, spawned process",
    "low_memory": "... with `low_cpu_mem_usage`",
    "auto": "`AutoPeftModelForCausalLM`",
    "transformers": "transformers' `add_adapter`, `load_adapter`, `delete_adapter`",
    "card": "model card of PEFT",
    "targets": "`target_modules`: names, regular expression, `all-linear`",
    "selectors": "`exclude_modules`, `layers_to_transform`, `layers_pattern`",
    "patterns": "`rank_pattern`, `alpha_pattern`",
    "modules_to_save": "`modules_to_save`",
    "autocast": "`autocast_adapter_dtype`, on and off",
    "several": "several adapters: active ones add",
    "switch": "switching adapters",
    "delete": "deleting an adapter",
    "disable": "`disable_adapter`",
    "unload": "`unload`",
    "mixed": "mixed batches (`adapter_names`)",
    "mixed_transformers": "... in transformers' own models",
    "generate": "generation with key-value cache",
    "merge": "`merge_adapter`, `unmerge_adapter`, `merge_and_unload`",
    "merge_several": "merging several active adapters at once",
    "lora": "`convert_to_lora`, `save_as_lora`",
    "checkpointing": "gradient checkpointing",
    "compile": "`torch.compile`",
    "dpo": "TRL's `DPOTrainer`",
    "bnb4": "bitsandbytes 4-bit base: forward, training",
    "bnb8": "bitsandbytes 8-bit base: forward, training",
    "torchao": "torchao int8 base: forward, training",
    "merge_bnb4": "merging into bitsandbytes 4-bit",
    "merge_bnb8": "merging into bitsandbytes 8-bit",
    "merge_torchao": "merging into torchao int8",
    "merge_unknown": "merging into a quantization that PEFT cannot write",
    "conv1d": "Conv1D layers (GPT-2)",
    "embedding": "embeddings",
    "mixed_model": "`PeftMixedModel`",
    "weighted": "`add_weighted_adapter`",
    "hotswap": "`hotswap_adapter`",
    "parameters": "`target_parameters`",
}
"""Every feature that `@pytest.mark.feature(...)` may name, and its row in the table."""

WORKS, REFUSED, NOT_APPLICABLE, NOT_RUN, FAILS = "yes", "refused", "-", "not run", "**fails**"
WORST_FIRST = (FAILS, NOT_RUN, REFUSED, NOT_APPLICABLE, WORKS)

REFUSALS_OF_PEFT = (
    (ValueError, r"The provided `peft_type` '\w+' is not compatible with the `PeftMixedModel`"),
    (ValueError, r"Hotswapping only supports LORA but \w+ was passed"),
    (TypeError, r"Some module types on this model do not support LoRA conversion"),
)
"""What PEFT says on purpose of methods that are not its own: type and beginning of the sentence."""

PACKAGES = {"torch", "transformers", "peft", "trl", "bitsandbytes", "torchao"}

HEAD = """# What works with which method
Every method of `qpeft.adapters.ADAPTERS` passes the same contract tests. This table is made from their outcomes, by

```
pytest tests/contracts --feature-table docs/features.md
```

with bitsandbytes and torchao installed.

`yes`: a test shows it. `refused`: there is an error that says so, and a test of it. `-`: the method has no such option.
"""


def outcome(report, refusals):
    """The word for one test, from pytest's report of it and the refusals that it met on purpose."""
    if report.skipped:
        return NOT_APPLICABLE if "not applicable" in str(report.longrepr) else NOT_RUN
    if not report.passed:
        return FAILS
    return REFUSED if refusals else WORKS


def is_deliberate(error):
    """Whether an error was meant for the user: one of ours, or one that PEFT raises for that purpose."""
    said = str(error)
    return isinstance(error, QpeftError) or any(
        type(error) is kind and re.match(sentence, said) for kind, sentence in REFUSALS_OF_PEFT
    )


def cell(outcomes):
    """The word for a feature of a method, from those of its tests."""
    return next(word for word in WORST_FIRST if word in outcomes) if outcomes else NOT_RUN


def render(methods, outcomes, refusals):
    """The page in Markdown.

    Args:
        methods: names, in order.
        outcomes: (feature, method) to the words of its tests.
        refusals: feature to the sentences of the errors that tests met.
    """
    lines = [HEAD, f"| feature | {' | '.join(methods)} |", f"| --- |{' --- |' * len(methods)}"]
    for feature, title in FEATURES.items():
        cells = [cell(outcomes.get((feature, method), ())) for method in methods]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    lines += ["", "What the refusals say:", ""]
    sentences = {sentence: None for feature in FEATURES for sentence in sorted(refusals.get(feature, ()))}
    for sentence in sentences:
        refused = [title for feature, title in FEATURES.items() if sentence in refusals.get(feature, ())]
        lines.append(f"- {'; '.join(refused)}: ``{sentence}``")
    versions = sorted({f"{found.name} {found.version}" for found in distributions() if found.name in PACKAGES})
    return "\n".join([*lines, "", f"Found with {', '.join(versions)}.", ""])


def rows_and_columns(page):
    """Titles of the features and names of the methods in a page made by `render`."""
    table = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    head, _, *rows = table
    return [row[0] for row in rows], head[1:]
