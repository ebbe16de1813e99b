"""The words by which people ask for a format of the weights, and what each of them means here."""

from __future__ import annotations

from soong.errors import UsageError

WORDS = ("bf16", "fp16", "fp32", "fp8", "int8", "int4", "nvfp4", "mxfp4", "bitsandbytes")
ALIASES = {
    "bfloat16": "bf16",
    "float16": "fp16",
    "half": "fp16",
    "float32": "fp32",
    "awq": "int4",
    "gptq": "int4",
    "w4a16": "int4",
    "4bit": "int4",
    "4-bit": "int4",
    "w8a8": "int8",
    "8bit": "int8",
    "8-bit": "int8",
    "fp4": "nvfp4",
    "bnb": "bitsandbytes",
    "nf4": "bitsandbytes",
}
"""Other names of the same width: a repository's own files say which of them it is."""
_MEANINGS = {**{word: word for word in WORDS}, **ALIASES}


def format_word(text: str) -> str:
    """The catalogue's word for what a person typed; the name of a GGUF mixture stays as it is.

    Raises:
        UsageError: it names no format.

    >>> format_word("AWQ"), format_word("Q4_K_M")
    ('int4', 'Q4_K_M')
    """
    word = _MEANINGS.get(text.strip().lower())
    if word is not None:
        return word
    from soong.models.gguf_mixture import BASE_TYPES, is_mixture

    if is_mixture(text.strip()):
        return text.strip()
    raise UsageError(
        f"there is no format `{text[:40]}`",
        why=f"formats: {', '.join(WORDS)}; for llama.cpp {', '.join(sorted(BASE_TYPES))}",
        hints=("leave `--quantization` out: the format is the one of the repository's own files",),
    )
