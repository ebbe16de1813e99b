"""What is asked of the planner: the options of `soong plan`, and one line of `soong plan --batch`, as one value.

Both roads come through `read_request`, so a flag and a JSON key mean the same and are refused in the same words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NoReturn

import msgspec

from soong import units
from soong.errors import UsageError
from soong.models.format_words import format_word

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from soong.speed.throughput import Lengths, Load

ENGINES = ("sglang", "vllm", "llama.cpp")
KV_DTYPES = ("auto", "bfloat16", "float16", "fp8", "fp8_e5m2")
Rank = Literal["price", "cost-per-token", "time"]
RANKS = ("price", "cost-per-token", "time")
LENGTHS = ("varied", "same")
DEFAULT_JOB_TOKENS = 1_000_000
"""The job of `--rank time` where `--job-tokens` does not say: the million that prices of tokens are quoted for."""
MOST_JOB_TOKENS = 10**15
MOST_GPUS = 1024
MOST_SEQUENCES = 1 << 20
MOST_REQUESTS = 10**12


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One question to the planner. None means: not said, the default decides.

    Attributes:
        model: catalogue id, Hugging Face id, folder, config.json or .gguf file.
        quantization: which of the catalogue's formats, or the stated one of a model without files.
        context_tokens, sequences, kv_dtype: the workload. Without `sequences` one is planned for; where a target
            or another rank than the price is given, the speed is then that of the largest batch that memory and target
            allow.
        engine, engine_version, memory_fraction, kv_cache_memory_bytes, enforce_eager, max_num_seqs,
        max_num_batched_tokens: the engine and its flags.
        text_only: leave out what sees or hears; changes nothing of a model that reads text alone, nor in llama.cpp.
        gpu, gpu_memory_bytes, gpu_count, tensor_parallel, pipeline_parallel, expert_parallel: the machine, and how its
            GPUs share the model.
        cloud, region, max_usd_per_hour: which offers to look at; cloud `all` means every one, a comma parts several.
        hours: for the cost line.
        spot: look also at machines that may be taken away at any moment.
        input_tokens, output_tokens: the lengths of a usual prompt and answer: for the speed, and for what several
            sequences at once take.
        fills_context: whether a prompt whose length nobody said fills the context; None: where a context is said. For
            one question asked in several ways, of which the speeds must be for the same load.
        requests: so many in all, all at once, and none after; None for a steady load. lengths: of their answers.
        target_tokens_per_second: what each user must at least see.
        rank: what the choice is by: `price` an hour, `cost-per-token`, or `time` for `job_tokens` output tokens.
    """

    model: str
    quantization: str | None = None
    context_tokens: int | None = None
    sequences: int | None = None
    kv_dtype: str = "auto"
    engine: str | None = None
    engine_version: str | None = None
    memory_fraction: float | None = None
    kv_cache_memory_bytes: int | None = None
    enforce_eager: bool = False
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    gpu: str | None = None
    gpu_memory_bytes: int | None = None
    gpu_count: int | None = None
    tensor_parallel: int | None = None
    pipeline_parallel: int = 1
    expert_parallel: bool = False
    text_only: bool = False
    cloud: str | None = None
    region: str | None = None
    max_usd_per_hour: float | None = None
    spot: bool = False
    hours: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    fills_context: bool | None = None
    requests: int | None = None
    lengths: Lengths = "varied"
    target_tokens_per_second: float | None = None
    rank: Rank = "price"
    job_tokens: int | None = None

    @property
    def searches_batch(self) -> bool:
        """Whether the batch is the largest that memory and target allow, and not the sequences said."""
        job = self.requests is not None or self.job_tokens is not None
        asked = job or self.target_tokens_per_second is not None or self.rank != "price"
        return self.sequences is None and asked

    @property
    def has_job(self) -> bool:
        """Whether time and cost of a job are asked for."""
        return bool(self.requests) or self.stated_job_tokens is not None

    @property
    def stated_job_tokens(self) -> int | None:
        """A job that is given in output tokens and not in requests; None where none is."""
        if self.requests:
            return None
        return self.job_tokens or (DEFAULT_JOB_TOKENS if self.rank == "time" else None)

    def job_of(self, load: Load) -> int | None:
        """The output tokens of the job whose time and cost are asked for; None where no job is meant.

        Args:
            load: what the request comes to with a model, whose context may cut its answers.
        """
        return load.requests * load.output_tokens if self.requests else self.stated_job_tokens


def read_request(options: Mapping[str, Any]) -> Request:
    """The request that `options` spell, by option name with underscores for dashes; None values are not said.

    Numbers are in base units (bytes, tokens, dollars, hours) or strings with units ("79.19GiB", "32k").

    Raises:
        UsageError: a key is unknown, `model` is missing, or a value makes no sense.
    """
    fields: dict[str, Any] = {}
    for key, value in options.items():
        reader = _READERS.get(key)
        if reader is None:
            _refuse_key(key)
        if value is not None:
            field, read = reader
            fields[field] = read(key, value)
    if not fields.get("model"):
        raise UsageError("a plan needs a `model`", hints=("soong plan llama-3.1-8b", "soong models"))
    if fields.get("gpu"):
        _count_gpus(fields)
    if "input_tokens" in fields or "output_tokens" in fields:
        _check_lengths(fields)
    if "requests" in fields and "job_tokens" in fields:
        _refuse_two_jobs(fields)
    return Request(**fields)


def _check_lengths(fields: dict[str, Any]) -> None:
    """Refuse a prompt and answer that the stated context cannot hold.

    Raises:
        UsageError: they are longer than `--context`.
    """
    context = fields.get("context_tokens")
    needed = fields.get("input_tokens", 0) + fields.get("output_tokens", 0)
    both = "input_tokens" in fields and "output_tokens" in fields
    if context is not None and (needed > context or (needed == context and not both)):
        raise UsageError(
            f"`--context` {context:,} does not hold a prompt and an answer of {needed:,} tokens",
            hints=(f"--context {needed + (0 if both else 1)}",),
        )


def _refuse_two_jobs(fields: dict[str, Any]) -> NoReturn:
    """Refuse a job that is given twice, which may differ.

    Raises:
        UsageError: always.
    """
    raise UsageError(
        "`--requests` and `--job-tokens` both say how large the job is",
        hints=(
            f"--requests {fields['requests']} --output-tokens 500",
            f"--job-tokens {fields['job_tokens']}",
        ),
    )


def _count_gpus(fields: dict[str, Any]) -> None:
    """Take the number from a GPU's word, as people write it: `8xH100` is `H100` and a count of 8.

    Raises:
        UsageError: `--gpu-count` says another number.
    """
    word = fields["gpu"]
    at = word.lower().find("x") if word[0].isdecimal() else -1
    number, gpu = word[:at].strip(), word[at + 1 :].strip()
    if at < 0 or not number.isdecimal() or not gpu or len(number) > len(str(MOST_GPUS)):
        return
    count = _count(MOST_GPUS)("gpu_count", number)
    if fields.setdefault("gpu_count", count) != count:
        raise UsageError(
            f"`--gpu` {_shown(word)} and `--gpu-count` {fields['gpu_count']} contradict each other"
        )
    fields["gpu"] = gpu


def _refuse_key(key: str) -> NoReturn:
    from difflib import get_close_matches

    near = get_close_matches(str(key), list(_READERS), n=1)
    hint = f"did you mean `{near[0]}`?" if near else "known keys: " + ", ".join(_READERS)
    raise UsageError(f"unknown key `{str(key)[:60]}`", hints=(hint,))


def _format(key: str, value: Any) -> str:
    return format_word(_text(key, value))


def _text(key: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f"`{key}` must be text, not {_shown(value)}")
    return value.strip()


def _flag(key: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"`{key}` must be true or false, not {_shown(value)}")
    return value


def _tokens(key: str, value: object) -> int:
    return units.parse_tokens(_quantity(key, value), what=_option(key))


def _bytes(key: str, value: object) -> int:
    return units.parse_bytes(_quantity(key, value), what=_option(key))


def _gpu_bytes(key: str, value: object) -> int:
    size_bytes = _bytes(key, value)
    if size_bytes < LEAST_GPU_BYTES:
        raise UsageError(
            f"{_option(key)} must be 1 GiB or more, not {_shown(value)}",
            why="no engine runs on a GPU with less",
            hints=("--gpu-memory 24GiB",),
        )
    return size_bytes


LEAST_GPU_BYTES = 1 << 30
"""vLLM and SGLang count in GiB and in thousands of MiB; their CUDA context alone takes half of this."""


def _usd(key: str, value: object) -> float:
    return units.parse_usd(_quantity(key, value), what=_option(key))


def _hours(key: str, value: object) -> float:
    return units.parse_hours(_quantity(key, value), what=_option(key))


def _quantity(key: str, value: object) -> str | int | float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise UsageError(f"`{key}` must be a number or text with a unit, not {_shown(value)}")
    return value


def _count(most: int) -> Callable[[str, object], int]:
    def read(key: str, value: object) -> int:
        if isinstance(value, str) and value.strip().isdecimal() and len(value) < 16:
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise UsageError(f"{_option(key)} must be a whole number from 1 to {most:,}, not {_shown(value)}")
        return value

    return read


def _fraction(key: str, value: object) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = -1.0
    if isinstance(value, bool) or not 0 < number <= 1:
        raise UsageError(
            f"{_option(key)} must lie between 0 and 1, not {_shown(value)}", hints=("for example 0.9",)
        )
    return number


def _rate(key: str, value: object) -> float:
    """Tokens a second: `40`, `40/s` or `40 tokens/s`."""
    text = (
        value.strip().lower().removesuffix("/s").removesuffix("tokens").strip()
        if isinstance(value, str)
        else value
    )
    try:
        number = float(text)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = -1.0
    if isinstance(value, bool) or not 0 < number < MOST_TOKENS_PER_SECOND:
        raise UsageError(
            f"{_option(key)} must be a rate of tokens, not {_shown(value)}", hints=("for example 40 or 40/s",)
        )
    return number


MOST_TOKENS_PER_SECOND = 1e9


def _job_tokens(key: str, value: object) -> int:
    """Output tokens of a job: `1000000`, `250k`, `10M`, `2B`; in thousands, as prices of tokens are."""
    text = str(value).strip().lower().replace(",", "").replace("_", "")
    power = {"k": 3, "m": 6, "b": 9}.get(text[-1:], 0)
    try:
        number = float(text[:-1] if power else text) * 10**power
    except (ValueError, OverflowError):
        number = -1.0
    if isinstance(value, bool) or not 1 <= number <= MOST_JOB_TOKENS:
        raise UsageError(
            f"{_option(key)} must be a number of tokens, not {_shown(value)}",
            hints=("for example 10M or 250k",),
        )
    return int(number)


def _choice(known: tuple[str, ...]) -> Callable[[str, object], str]:
    def read(key: str, value: object) -> str:
        word = value.strip().lower() if isinstance(value, str) else ""
        if word not in known:
            raise UsageError(f"{_option(key)} must be one of {', '.join(known)}, not {_shown(value)}")
        return word

    return read


def _clouds(key: str, value: object) -> str:
    """One cloud, `all`, or several as `lambda,runpod`, in any case."""
    word = _text(key, value)
    if word.isalnum() and word.islower():
        return word
    from soong.offers.sources import ALL, cloud_words

    words = cloud_words(word)
    if not words:
        raise UsageError(
            f"{_option(key)} names no cloud: {_shown(value)}",
            hints=("--cloud lambda", "--cloud lambda,runpod", "--cloud all"),
        )
    return ALL if ALL in words else ",".join(words)


def _kv_dtype(key: str, value: object) -> str:
    word = _text(key, value).lower()
    return _choice(KV_DTYPES)(key, KV_DTYPE_NAMES.get(word, word))


KV_DTYPE_NAMES = {
    "bf16": "bfloat16",
    "fp16": "float16",
    "half": "float16",
    "fp8_e4m3": "fp8",
    "fp8_inc": "fp8",
}
"""Other words that engines accept for the same cache types."""


def _option(key: str) -> str:
    return f"`--{key.replace('_', '-')}`"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


_READERS: dict[str, tuple[str, Callable[[str, object], Any]]] = {
    "model": ("model", _text),
    "quantization": ("quantization", _format),
    "context": ("context_tokens", _tokens),
    "sequences": ("sequences", _count(MOST_SEQUENCES)),
    "kv_dtype": ("kv_dtype", _kv_dtype),
    "engine": ("engine", _choice(ENGINES)),
    "engine_version": ("engine_version", _text),
    "memory_fraction": ("memory_fraction", _fraction),
    "kv_cache_memory": ("kv_cache_memory_bytes", _bytes),
    "enforce_eager": ("enforce_eager", _flag),
    "max_num_seqs": ("max_num_seqs", _count(MOST_SEQUENCES)),
    "max_num_batched_tokens": ("max_num_batched_tokens", _tokens),
    "gpu": ("gpu", _text),
    "gpu_memory": ("gpu_memory_bytes", _gpu_bytes),
    "gpu_count": ("gpu_count", _count(MOST_GPUS)),
    "tensor_parallel": ("tensor_parallel", _count(MOST_GPUS)),
    "pipeline_parallel": ("pipeline_parallel", _count(MOST_GPUS)),
    "expert_parallel": ("expert_parallel", _flag),
    "text_only": ("text_only", _flag),
    "cloud": ("cloud", _clouds),
    "spot": ("spot", _flag),
    "region": ("region", _text),
    "max_price": ("max_usd_per_hour", _usd),
    "hours": ("hours", _hours),
    "input_tokens": ("input_tokens", _tokens),
    "output_tokens": ("output_tokens", _tokens),
    "requests": ("requests", _count(MOST_REQUESTS)),
    "lengths": ("lengths", _choice(LENGTHS)),
    "target": ("target_tokens_per_second", _rate),
    "rank": ("rank", _choice(RANKS)),
    "job_tokens": ("job_tokens", _job_tokens),
}
"""Option name to the request's field and the reader of its value."""
