"""The terms of a vLLM launch as lines with their figures, for those who ask how a number came about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from soong.memory.engines._vllm_graphs import FP32_BYTES
from soong.memory.engines._vllm_profile import runs_in_second_runner

if TYPE_CHECKING:
    from collections.abc import Iterator

    from soong.memory.engines._facts import Facts
    from soong.memory.engines._vllm_graphs import Graphs
    from soong.memory.engines._vllm_profile import Activations, Batch


class Part(NamedTuple):
    """One moment or item of a term. of: activations, graphs or runtime. formula: how the bytes came about."""

    of: str
    name: str
    size_bytes: int
    formula: str


def activation_parts(facts: Facts, rules: dict[str, Any], peak: Activations, batch: Batch) -> Iterator[Part]:
    """The moments of the profile run; the engine takes the largest, with what is kept through all of them."""
    of = "activations"
    if peak.encoder_bytes or peak.kept_bytes:
        yield Part(
            of, "vision encoder", peak.encoder_bytes, "pixels of its largest items and the widest layer"
        )
        yield Part(
            of, "kept meanwhile", peak.kept_bytes, "pixels, the encoder's outputs, workspace of experts"
        )
    if peak.compile_bytes:
        copied = f"a copy of the embedding, {facts.compiled_embedding_bytes:,} bytes, and a batch of rows"
        later = "the first start on a machine only: later ones find the kernels and may hold more tokens"
        yield Part(of, "compiling", peak.compile_bytes, f"{copied}; {later}")
    layer = f"{batch.tokens:,} tokens × 2 bytes × (4 × hidden size {facts.hidden_size:,}"
    widest = "" if facts.mixture else f" + 3 × MLP width {facts.mlp_width:,}"
    yield Part(of, "forward pass", peak.forward_bytes, f"{layer}{widest}) + workspaces")
    if not facts.writes_text:
        yield Part(of, "pooler", peak.sampler_bytes, f"{batch.tokens:,} tokens × hidden size × 10 bytes")
        return
    second = runs_in_second_runner(facts, rules)
    per_logit = rules["second_runner_bytes_per_logit"] if second else rules["sampler_bytes_per_logit"]
    rows = f"{batch.sequences:,} sequences × vocabulary {facts.vocab_size:,}"
    yield Part(of, "sampler", peak.sampler_bytes, f"{rows} × {per_logit:g} bytes + hidden states + workspace")
    if peak.counters_bytes:
        yield Part(of, "counters", peak.counters_bytes, f"{rows} × 4 bytes and a bit or two, for penalties")
    warm = f"{rows} × {rules['sampler_bytes_per_logit']:g} bytes, after the pool is allocated"
    yield Part(of, "warm-up", peak.warm_up_bytes, warm)


def graph_parts(facts: Facts, captured: Graphs, full_captures: int) -> Iterator[Part]:
    """Captures at their share of a full set, and what FlashAttention 3 keeps."""
    if not captured.captures:
        return
    made = f"{captured.captures} of them for {facts.graph_layers} layers"
    share = f"{made}; a full set of {full_captures} takes {captured.whole_bytes:,} bytes, as measured"
    sized = captured.total_bytes - captured.split_bytes - captured.first_bytes - captured.indexer_bytes
    yield Part("graphs", "captures", sized, share)
    if captured.split_bytes:
        rows = captured.split_bytes // (FP32_BYTES * max(1, facts.attention_width))
        yield Part(
            "graphs",
            "partial sums",
            captured.split_bytes,
            f"{rows:,} rows × {facts.attention_width:,} × 4 bytes",
        )
    if captured.first_bytes:
        yield Part("graphs", "first", captured.first_bytes, "attention's kernels and workspaces, measured")
    if captured.indexer_bytes:
        yield Part(
            "graphs", "scores", captured.indexer_bytes, "sequences × context × 4 bytes of a sparse indexer"
        )


def runtime_parts(context_bytes: int, non_torch_bytes: int) -> Iterator[Part]:
    """What the budget leaves out, and what it includes."""
    yield Part(
        "runtime",
        "context",
        context_bytes,
        "the driver and a group's communicators, before the engine's budget",
    )
    yield Part(
        "runtime", "libraries", non_torch_bytes, "what grows outside PyTorch in the profile run, measured"
    )
