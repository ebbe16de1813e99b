"""Which classes and versions of the engines keep weights otherwise than the rest; `weights.py` applies it."""

from __future__ import annotations

from soong.memory.allocator import MIB

CACHE_SCALES_BYTES = 4 * 4
"""Four float32 scales (query, key, value, probability) of each attention layer: vLLM `layers/attention`."""

WHOLE_BLOCKS_SINCE, WHOLE_BLOCKS_FROM_BYTES = (0, 21), 20 * MIB
"""From this version no block of that size or more is split while a model loads: pull request 41268 (May 2026), which
sets PyTorch's `max_split_size_mb`; 0.33 `v1/worker/gpu_worker.py` load_model.
"""

DRAFT_ROOM_UNTIL = {"DeepseekV4ForCausalLM": ((0, 27), "hc_head_fn")}
"""Classes that kept a batch's last hidden states for drafts whether or not any were made, until which version, and the
matrix that is as wide as they: `models/deepseek_v4/nvidia/model.py` _mtp_hidden_buffer of 0.26; 0.27.0 has it only
where needs_mtp_hidden_states.
"""

SHORT_ROTARY_SINCE = (0, 32)
"""The first version whose interleaved M-RoPE tables stop at the context's end: `layers/rotary_embedding/mrope.py`
positions_factor; 0.31 has four times that.
"""

COMPUTED_ROTARY = {"SmolLM3ForCausalLM": (0, 0)} | dict.fromkeys(
    (
        "ArceeForCausalLM", "CwmForCausalLM", "FlexOlmoForCausalLM", "GlmForCausalLM", "GPTNeoXForCausalLM",
        "HunYuanDenseV1ForCausalLM", "HunYuanMoEV1ForCausalLM", "Jais2ForCausalLM", "MellumForCausalLM",
        "NanbeigeForCausalLM", "OlmoForCausalLM", "Olmo2ForCausalLM", "Olmo3ForCausalLM", "PhiForCausalLM",
        "SeedOssForCausalLM", "Starcoder2ForCausalLM", "VaultGemmaForCausalLM",
        # and of those that it runs so for lack of a class of its own
        "BitNetForCausalLM", "Dots1ForCausalLM", "HeliumForCausalLM", "Mistral4ForCausalLM", "NanoChatForCausalLM",
    ),
    (0, 32),
)  # fmt: skip
"""Classes that vLLM runs with transformers' code, which computes angles as it goes, and from which version on.

Source: vLLM 0.32 `models/registry.py` _TRANSFORMERS_SUPPORTED_MODELS.
"""

WHOLE_MLP_SINCE = {"GPTBigCodeForCausalLM": (0, 32)}
"""Run with transformers' code, which has no plan to divide them: vLLM divides what it fuses, the attention alone.

Source: vLLM 0.32 `models/registry.py`, `models/transformers/base.py`; since when is not known: the first seen.
"""

ROCM_ALLOCATED_SINCE = (0, 27)
"""Before, vLLM asked ROCm's driver, as SGLang asks every driver: vLLM pull request 12624, `platforms/rocm.py`.

Logs of 0.11 to 0.17 print what segments make and 0.06 GiB more; one of August 2026 prints the tensors.
"""

OWN_KEYS_SINCE, SHARERS = (0, 29), frozenset({"gemma3n", "gemma3n_text", "gemma4", "gemma4_text"})
"""Before, layers that read another layer's cache had keys and values of their own, unused: vLLM pull request 54917."""

IDLE_KEYS = (".k_proj", ".v_proj", ".k_norm")
"""What `gemma4.py` and `gemma3n.py` of transformers give those layers no more."""

PLAIN_TOWERS = {
    "Llama4ForConditionalGeneration": {"compressed-tensors", "fp8", "fbgemm_fp8"},
    "KimiK25ForConditionalGeneration": {"compressed-tensors"},
}
"""Classes that hand their towers no quantization, by the repository's method: vLLM 0.33 `mllama4.py`, `kimi_k25.py`."""

LEAST_WIDTH_SINCE = (0, 32)
"""Kimi's experts kept at least 256 wide: `models/kimi_k3/nvidia/model.py`; since when is not known: the first seen."""

SGLANG_WHOLE_TOWERS = {"KimiK25ForConditionalGeneration": ".mlp.", "KimiVLForConditionalGeneration": "."}
"""Classes whose towers SGLang keeps in 16 bits, and what of their paths stands whole on every GPU.

Source: SGLang 0.5.9 to 0.5.23 `models/kimi_k25.py` (MLP2 is not divided), `models/kimi_vl_moonvit.py` (nn.Linear).
"""

PACKED_TOWERS = frozenset(
    {
        "AriaForConditionalGeneration", "DotsOCRForCausalLM", "Ernie4_5_VLMoeForConditionalGeneration",
        "Glm4vForConditionalGeneration", "Glm4vMoeForConditionalGeneration", "InternVLChatModel",
        "InternVLForConditionalGeneration", "KeyeForConditionalGeneration", "Lfm2VlForConditionalGeneration",
        "LlavaForConditionalGeneration", "LlavaNextForConditionalGeneration", "LlavaOnevisionForConditionalGeneration",
        "Mistral3ForConditionalGeneration", "PaddleOCRVLForConditionalGeneration", "Qwen2VLForConditionalGeneration",
        "Qwen2_5_VLForConditionalGeneration", "Qwen3VLForConditionalGeneration", "Qwen3VLMoeForConditionalGeneration",
        "Qwen3_5ForConditionalGeneration", "Qwen3_5MoeForConditionalGeneration",
    }
)  # fmt: skip
"""Classes that hand their vision tower the quantization as it is, so that FP8 made on loading goes for it too.

Source: vLLM 0.33 `models/`, where each makes its tower; 28.0 GiB of Qwen3.5-27B in vLLM pull request 35289.
"""

REPLICATED_GATES_SINCE, MARLIN_METHODS = (0, 18), {"awq", "gptq", "auto-round", "intel/auto-round"}
"""vLLM issue 35924 (March 2026): gates of Qwen3.5's linear attention, beside these methods."""

FLOAT32_ROTARY = {"gpt_oss"}
"""Model types whose tables are in float32 in either engine."""

SGLANG_PLAIN_ROTARY = {"gemma3", "gemma3_text"}
SGLANG_PLAIN_ROTARY_SINCE, ROTARY_TABLES, FLOAT32_BYTES = (0, 5, 10), 2, 4
"""SGLang 0.4.6 to 0.5.9 `models/gemma3_causal.py` keeps frequencies alone; 0.5.10 to 0.5.23 has a table for global and
one for local layers, both of type "default".
"""
