"""Read the quantization that a config.json, or ModelOpt's hf_quant_config.json, describes.

One function per exporter, each named after its `quant_method`. A method that has no function is still
accepted: its bits, where the file states them, give the bytes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from soong.models.config_json import Config
from soong.models.quantization.formats import Format
from soong.models.quantization.matching import Names, canonical
from soong.models.quantization.quantization import Quantization, Rule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

DTYPE_LABELS = {"float32": "FP32", "float16": "FP16", "bfloat16": "BF16"}

SECTIONS = ("quantization_config", "compression_config", "quantization")

MODELOPT_WORDS = frozenset({"", "modelopt-fp4", "modelopt-mixed", "modelopt-fp8", "modelopt-mxfp8"})
"""Words of `quant_method` that leave the layout to `quant_algo`; with none at all ModelOpt is meant too."""

_LATER_EXPERT = r"\.experts\.[1-9]"
"""All experts of a layer are stored alike: the first speaks for them."""

_SPECIAL = r"[*+?^$()\[\]{}|\\]"
"""A name with one of these is a pattern to AutoRound."""

FP8_TENSOR = Format(kind="fp8_tensor", bits=8, label="FP8", scale_bytes=4)
FP8_STATIC = msgspec.structs.replace(FP8_TENSOR, static_input=True)
FP8_CHANNEL = Format(kind="fp8_channel", bits=8, label="FP8")
INT8_CHANNEL = Format(kind="int8_channel", bits=8, label="INT8 (W8A8)")
NVFP4 = Format(kind="nvfp4", bits=4, label="NVFP4", group=16, static_input=True)
NVFP4_WEIGHTS = msgspec.structs.replace(NVFP4, static_input=False)
MXFP4 = Format(kind="mxfp4", bits=4, label="MXFP4", group=32)
MXFP8 = Format(kind="mxfp8", bits=8, label="MXFP8", group=32)


def read_quantization(config: Config, hf_quant: Config | None = None, *, dtype: str) -> Quantization:
    """How the repository of this config stores its tensors.

    Args:
        config: the whole config.json.
        hf_quant: ModelOpt's hf_quant_config.json, where the repository has one.
        dtype: the type of unquantised tensors: bfloat16, float16 or float32.

    Raises:
        ConfigError: a number or list in it has a wrong type.
    """
    section = _section(config)
    named = _is_named(config, hf_quant)
    if hf_quant is not None and (section is None or "quant_method" not in section):
        stated = hf_quant.section("quantization") if "quantization" in hf_quant else hf_quant
        section = Config({**stated.values, **(section.values if section else {})}, "quantization_config")
    if section is None or not section.values:
        return unquantised(dtype)
    method = _method(section)
    read = _READERS.get(method, _other)
    found = read(section, method, dtype)
    return msgspec.structs.replace(_with_expert_dtype(found, config), named=named)


def _is_named(config: Config, hf_quant: Config | None) -> bool:
    """Whether vLLM's loader sees a method: in `quantization_config`, else in hf_quant_config.json as a whole.

    Source: vLLM 0.33 `transformers_utils/config.py` get_config, `model_arch_config_convertor.py`
    _normalize_quantization_config: the method's own word, or ModelOpt as the producer of a `quantization` section.
    """
    place = next(
        (place for place in (config, config.section("text_config")) if "quantization_config" in place), None
    )
    stated = place.section("quantization_config") if place is not None else hf_quant
    if stated is None:
        return "compression_config" in config
    if stated.text("quant_method"):
        return True
    producer, inner = stated.values.get("producer"), stated.values.get("quantization")
    by_modelopt = isinstance(producer, dict) and producer.get("name") == "modelopt"
    # A side file without its producer is an excerpt: ModelOpt writes both, and packed tensors fit no 16-bit layer.
    excerpt = place is None and producer is None
    return (by_modelopt or excerpt) and isinstance(inner, dict) and bool(inner.get("quant_algo"))


def unquantised(dtype: str) -> Quantization:
    """A repository of plain tensors."""
    return Quantization(method="none", label=DTYPE_LABELS.get(dtype, dtype.upper()), dtype=dtype)


def uniform(name: str, dtype: str = "bfloat16", *, on_loading: bool = False) -> Quantization:
    """The storage that a catalogue entry's word ("int4", "fp8", "fp16") most likely means; marked as assumed.

    int4 is taken as AWQ with groups of 128, the commonest 4-bit repositories; int8 as one scale a row.

    Args:
        name: the word.
        dtype: of the tensors that are left alone.
        on_loading: the engine packs 16-bit files while it reads them. FP8 then has one scale a matrix (vLLM 0.33
            `quantization/online/fp8.py`); bitsandbytes packs its maxima too (vLLM 0.9 `bitsandbytes_loader.py`).
    """
    plain = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "none": dtype}
    if name in plain:
        return msgspec.structs.replace(unquantised(plain[name]), assumed=True)
    forms = {
        "int4": _awq_format(4, 128, zero_points=True),
        "int8": INT8_CHANNEL,
        "fp8": FP8_TENSOR if on_loading else FP8_CHANNEL,
        "mxfp4": MXFP4,
        "nvfp4": NVFP4,
        "bitsandbytes": Format(kind="bnb_4bit", bits=4, label="NF4 (bitsandbytes)", double=on_loading),
    }
    form = forms.get(name, forms["int4"])
    return Quantization(method=form.kind, label=form.label, dtype=dtype, default=form, assumed=True)


def _section(config: Config) -> Config | None:
    config.section("quantization_config")  # refuses what is no object; the older names may be plain words
    for place in (config, config.section("text_config"), config.section("llm_config")):
        for key in SECTIONS:
            if key in place and isinstance(place.values[key], dict):
                return place.section(key)
    return None


def _method(section: Config) -> str:
    stated = section.text("quant_method").lower().replace("_", "-")
    producer = section.values.get("producer")
    if section.text("quant_algo") and stated in MODELOPT_WORDS:
        return "modelopt"
    if stated:
        return {"fbgemm-fp8": "fbgemm_fp8", "awq-marlin": "awq", "gptq-marlin": "gptq"}.get(stated, stated)
    if isinstance(producer, dict) and producer.get("name") == "modelopt":
        return "modelopt"
    if section.flag("load_in_4bit") or section.flag("load_in_8bit"):
        return "bitsandbytes"
    return "compressed-tensors" if "config_groups" in section else "mlx"


def _with_expert_dtype(found: Quantization, config: Config) -> Quantization:
    """DeepSeek-V4 keeps its experts in MXFP4 beside FP8 and says so outside of the quantization section."""
    text = config.section("text_config") if "text_config" in config else config
    if (
        found.method != "fp8"
        or found.label != "FP8"
        or text.text("expert_dtype", config.text("expert_dtype")) != "fp4"
    ):
        return found
    experts = Rule(Names(["re:.*(experts)(\\.|$)(?<!shared_experts\\.)(?<!shared_experts)"]), MXFP4)
    return msgspec.structs.replace(found, rules=(*found.rules, experts), label=f"MXFP4 + {found.label}")


def _plain_rule(names: Iterable[str]) -> tuple[Rule, ...]:
    names = list(names)
    return (Rule(Names(names), None),) if names else ()


def _label(forms: Iterable[Format | None]) -> str:
    return " + ".join(dict.fromkeys(form.label for form in forms if form is not None))


def _fp8(section: Config, method: str, dtype: str) -> Quantization:
    """FP8 of DeepSeek, Qwen, Mistral and others. Source: vLLM 0.33 `quantization/fp8.py`."""
    ignored = section.texts("ignored_layers") or section.texts("modules_to_not_convert")
    block = section.integers("weight_block_size")
    if len(block) == 2 and min(block) > 0:
        scale_bytes = 4
        default = Format(
            kind="fp8_block", bits=8, label="FP8", block=(block[0], block[1]), scale_bytes=scale_bytes
        )
    else:
        default = FP8_STATIC if section.text("activation_scheme") == "static" else FP8_TENSOR
    rules = _plain_rule(ignored)
    label = "FP8"
    if section.values.get("moe_quant_algo") == "NVFP4":  # ModelOpt's DeepSeek-V4: only the experts are NVFP4
        rules = (*_quantized_layer_rules(section), *rules)
        label = "NVFP4 + FP8"
    return Quantization(
        method=method,
        label=label,
        dtype=dtype,
        default=default,
        rules=rules,
        kv_cache_dtype=_kv_dtype(section),
        exactly=frozenset(map(canonical, ignored)),
    )


def _fbgemm_fp8(section: Config, method: str, dtype: str) -> Quantization:
    """One float32 scale an output row, dynamic inputs. Source: vLLM 0.33 `quantization/fbgemm_fp8.py`."""
    default = msgspec.structs.replace(FP8_CHANNEL, scale_bytes=4)
    rules = _plain_rule(section.texts("modules_to_not_convert"))
    return Quantization(method=method, label="FP8", dtype=dtype, default=default, rules=rules)


def _awq_format(bits: int, group: int, *, zero_points: bool) -> Format:
    return Format(kind="awq", bits=bits, label=f"INT{bits} (AWQ)", group=group, zero_points=zero_points)


def _awq(section: Config, method: str, dtype: str) -> Quantization:
    """Source: vLLM 0.33 `quantization/auto_awq.py`."""
    bits = section.integer("bits", "w_bit", default=4, least=1)
    group = _group(section, "group_size", "q_group_size")
    default = _awq_format(bits, group, zero_points=section.flag("zero_point", default=True))
    rules = _plain_rule(section.texts("modules_to_not_convert"))
    return Quantization(method=method, label=default.label, dtype=dtype, default=default, rules=rules)


def _gptq(section: Config, method: str, dtype: str) -> Quantization:
    """GPTQModel's. Source: vLLM 0.33 `quantization/auto_gptq.py`, `utils/gptq_utils.py`."""
    default = _gptq_format(section, "GPTQ")
    dynamic = section.section("dynamic")
    head = section.flag("lm_head")  # without it no pattern reaches the output projection
    rules = _plain_rule([*section.texts("modules_to_not_convert"), *([] if head else ["lm_head"])])
    for pattern in dynamic.values:  # the first that matches decides, so they are kept in order
        names = Names([f"re:{pattern.removeprefix('+:').removeprefix('-:')}"])
        skipped = pattern.startswith("-:")
        rules = (*rules, Rule(names, None if skipped else _changed(default, dynamic.section(pattern))))
    return Quantization(
        method=method,
        label=default.label,
        dtype=dtype,
        default=default,
        rules=rules,
        covers_head=head,
    )


def _auto_round(section: Config, method: str, dtype: str) -> Quantization:
    """Intel's AutoRound, in GPTQ's or AWQ's packing. Source: vLLM 0.33 `quantization/inc/config_parser.py`."""
    packing = section.text("packing_format", "auto_round:auto_gptq")
    default = _gptq_format(section, "AutoRound")
    if "awq" in packing:
        zero_points = not section.flag("sym", default=True)
        default = msgspec.structs.replace(default, kind="awq", zero_points=zero_points)
    by_form: dict[Format | None, list[str]] = {}
    extra = section.section("extra_config")
    for name, own in extra.values.items():
        if isinstance(own, dict):
            spelled = f"re:.*(?:{name})" if re.search(_SPECIAL, name) else name
            by_form.setdefault(_changed(default, extra.section(name)), []).append(spelled)
    return Quantization(
        method=method,
        label=default.label,
        dtype=dtype,
        default=default,
        rules=tuple(Rule(Names(names), form) for form, names in by_form.items()),
    )


def _gptq_format(section: Config, word: str) -> Format:
    bits = section.integer("bits", default=4, least=1)
    group = _group(section, "group_size")
    return Format(
        kind="gptq",
        bits=bits,
        label=f"INT{bits} ({word})",
        group=group,
        zero_points=True,
        act_order=section.flag("desc_act") and group > 0,
        symmetric=section.flag("sym", default=True),
    )


def _changed(form: Format, own: Config) -> Format | None:
    """The format with the bits and group that an entry states for some modules; None where it leaves them alone."""
    bits = own.integer("bits", default=int(form.bits), least=1)
    if bits >= 16:
        return None
    label = form.label.replace(f"INT{form.bits:g}", f"INT{bits}")
    group = _group(own, "group_size") if "group_size" in own else form.group
    return msgspec.structs.replace(form, bits=bits, label=label, group=group)


def _group(section: Config, *keys: str) -> int:
    for key in keys:
        value = section.values.get(key)
        if isinstance(value, int) and not isinstance(value, bool):
            return max(0, value)
    return 128  # the default of AutoAWQ, AutoGPTQ and GPTQModel


def _compressed_tensors(section: Config, method: str, dtype: str) -> Quantization:
    """Groups of targets, each with its scheme. Source: vLLM 0.33 `compressed_tensors.py`.

    The target "Linear" is no output projection: that is packed where a target names it.
    """
    rules = list(_plain_rule(section.texts("ignore")))
    default: Format | None = None
    forms: list[Format | None] = []
    groups = section.section("config_groups")
    for key in groups.values:
        group = groups.section(key)
        form = _scheme(group, group.text("format") or section.text("format"))
        forms.append(form)
        named = [
            target for target in group.texts("targets") if target.startswith("re:") or target[:1].islower()
        ]
        if named:
            rules.append(Rule(Names(named), form))
        if len(named) < len(group.texts("targets")):
            default = default or form
    return Quantization(
        method=method,
        label=_label(forms) or DTYPE_LABELS.get(dtype, dtype),
        dtype=dtype,
        default=default,
        rules=tuple(rules),
        kv_cache_dtype=_kv_dtype(section),
        covers_towers=True,
    )


def _scheme(group: Config, layout: str) -> Format | None:
    """The format of one group: the type, bits and strategy of its weights."""
    weights = group.section("weights")
    inputs = group.section("input_activations")
    bits = weights.integer("num_bits", default=16)
    strategy, size = weights.text("strategy"), max(0, weights.integer("group_size", default=0, least=-1))
    static = "num_bits" in inputs and inputs.values.get("dynamic") in (False, "local")
    if weights.text("type", "int") == "float":
        form = _float_scheme(weights, bits, strategy, size, layout, static=static)
        if form == MXFP4 and inputs.integer("num_bits", default=16) != 8:  # only W4A8 experts are aligned
            form = msgspec.structs.replace(MXFP4, unaligned=True)
        return form
    if bits == 8 and "num_bits" in inputs:
        return INT8_CHANNEL
    if bits > 8:
        return None
    return Format(
        kind="packed",
        bits=bits,
        label=f"INT{bits} (W{bits}A16)",
        group=size,
        zero_points=not weights.flag("symmetric", default=True),
        act_order=weights.values.get("actorder") in ("group", True),
    )


def _float_scheme(
    weights: Config, bits: int, strategy: str, size: int, layout: str, *, static: bool
) -> Format | None:
    if bits not in {4, 8}:
        return None
    if layout.startswith("mxfp") or size == 32:
        return MXFP4 if bits == 4 else MXFP8
    if bits == 4:
        return msgspec.structs.replace(NVFP4, static_input=static)
    block = weights.integers("block_structure")
    if len(block) == 2 and min(block) > 0:
        return Format(kind="fp8_block", bits=8, label="FP8", block=(block[0], block[1]))
    if strategy == "tensor":
        return msgspec.structs.replace(FP8_STATIC if static else FP8_TENSOR, scale_bytes=2)
    return FP8_CHANNEL


def _modelopt(section: Config, method: str, dtype: str) -> Quantization:
    """NVIDIA ModelOpt. Source: vLLM 0.33 `quantization/modelopt.py`."""
    if "quantization" in section:
        section = section.section("quantization")
    ignored = section.texts("ignore") or section.texts("exclude_modules")
    layers = _quantized_layer_rules(section)
    algorithm = section.text("quant_algo")
    default = None if layers else _algorithm(algorithm, section.integer("group_size", default=16))
    rules = (*layers, *_plain_rule(ignored))
    return Quantization(
        method=method,
        label=_label([default, *(rule.form for rule in rules)]) or algorithm or "ModelOpt",
        dtype=dtype,
        default=default,
        rules=rules,
        kv_cache_dtype=_kv_dtype(section),
        covers_head=True,
        algorithm=algorithm.upper(),
        unread=bool(algorithm) and default is None and not layers and algorithm.upper() != "MIXED_PRECISION",
    )


def _algorithm(name: str, group: int = 16) -> Format | None:
    """ModelOpt's word for a layout; None for one that leaves weights alone or that nobody serves."""
    name = name.upper()
    if "NVFP4" in name:
        form = NVFP4_WEIGHTS if name.startswith("W4A16") else NVFP4
        return msgspec.structs.replace(form, group=group or 16)
    if name in {"FP8_PB_WO", "FP8_BLOCK_SCALES"}:
        return Format(kind="fp8_block", bits=8, label="FP8", block=(128, 128), scale_bytes=4)
    if name.startswith(("W4A16_AWQ", "W4A8_AWQ", "INT4_AWQ")):
        return _awq_format(4, group or 128, zero_points=False)
    known = {
        "FP8": FP8_STATIC,
        "FP8_PER_CHANNEL_PER_TOKEN": msgspec.structs.replace(FP8_CHANNEL, scale_bytes=4),
        "MXFP8": MXFP8,
        "MXFP4": MXFP4,
        "W4A8_MXFP4_FP8": MXFP4,
        "INT8_SQ": INT8_CHANNEL,
    }
    return known.get(name)


def _quantized_layer_rules(section: Config) -> tuple[Rule, ...]:
    """Mixed precision: modules by name, gathered by their format."""
    stated = section.section("quantized_layers")
    by_form: dict[Format, list[str]] = {}
    known: dict[tuple[str, int], Format | None] = {}
    for name, own in stated.values.items():
        if not isinstance(own, dict) or re.search(_LATER_EXPERT, name):
            continue
        group = own.get("group_size", 16)
        algorithm, group = str(own.get("quant_algo")), group if isinstance(group, int) else 16
        if (algorithm, group) not in known:
            known[algorithm, group] = _algorithm(algorithm, group)
        form = known[algorithm, group]
        if form is not None:
            by_form.setdefault(form, []).append(name)
    if not by_form and section.values.get("moe_quant_algo") == "NVFP4":
        by_form[NVFP4] = ["re:.*\\.experts(\\.|$)"]
    return tuple(Rule(Names(names), form) for form, names in by_form.items())


def _kv_dtype(section: Config) -> str:
    """`fp8` where the repository brings scales for an FP8 cache, or asks for one."""
    stated = section.values.get("kv_cache_quant_algo") or section.values.get("kv_cache_scheme")
    if isinstance(stated, dict):
        return "fp8" if stated.get("num_bits") == 8 and stated.get("type", "float") == "float" else ""
    # AMD's FP8-KV repositories say "static", which neither engine takes as a wish: `torch_utils.py` of vLLM 0.33,
    # `fp8.py` of SGLang 0.5.23.
    return "fp8" if isinstance(stated, str) and stated.upper() == "FP8" else ""


def _bitsandbytes(section: Config, method: str, dtype: str) -> Quantization:
    """Source: transformers `quantizers/quantizer_bnb_4bit.py`, `quantizer_bnb_8bit.py`."""
    if section.flag("load_in_8bit") or section.flag("_load_in_8bit"):
        default = Format(kind="bnb_8bit", bits=8, label="INT8 (bitsandbytes)")
    else:
        word = section.text("bnb_4bit_quant_type", "nf4").upper()
        double = section.flag("bnb_4bit_use_double_quant")
        default = Format(kind="bnb_4bit", bits=4, label=f"{word} (bitsandbytes)", double=double)
    rules = _plain_rule(section.texts("llm_int8_skip_modules"))
    return Quantization(
        method=method, label=default.label, dtype=dtype, default=default, rules=rules, covers_towers=True
    )


def _mxfp4(section: Config, method: str, dtype: str) -> Quantization:
    """gpt-oss: experts in MXFP4, all else in 16 bits. Source: vLLM 0.33 `quantization/mxfp4.py`."""
    rules = _plain_rule(section.texts("modules_to_not_convert"))
    return Quantization(
        method=method, label="MXFP4", dtype=dtype, default=MXFP4, rules=rules, only_experts=True
    )


def _mlx(section: Config, method: str, dtype: str) -> Quantization:
    """MLX packs embeddings too; a 16-bit scale and bias a group. Source: mlx `nn/layers/quantized.py`."""
    bits = section.integer("bits", default=4, least=1)
    default = Format(kind="mlx", bits=bits, label=f"INT{bits} (MLX)", group=_group(section, "group_size"))
    return Quantization(
        method=method,
        label=default.label,
        dtype=dtype,
        default=default,
        covers_head=True,
        covers_embedding=True,
    )


def _quark(section: Config, method: str, dtype: str) -> Quantization:
    """AMD Quark. Source: vLLM 0.33 `quantization/quark/quark.py`."""
    weight = section.section("global_quant_config").section("weight")
    word = weight.text("dtype")
    default: Format | None = FP8_TENSOR if word.startswith("fp8") else None
    if word.startswith("fp8") and weight.text("qscheme") == "per_channel":
        default = FP8_CHANNEL
    elif word in {"fp4", "mxfp4"}:
        default = MXFP4
    elif word == "int8":
        default = INT8_CHANNEL
    elif word in {"int4", "uint4"}:
        default = Format(kind="packed", bits=4, label="INT4 (Quark)", group=_group(weight, "group_size"))
    kv_cache = "fp8" if section.section("export").values.get("kv_cache_group") else ""
    label = default.label if default else "Quark"
    rules = _plain_rule(section.texts("exclude"))
    return Quantization(
        method=method, label=label, dtype=dtype, default=default, rules=rules, kv_cache_dtype=kv_cache
    )


def _exl2(section: Config, method: str, dtype: str) -> Quantization:
    """EXL2 and EXL3: mean bits, and others for the head. Source: exllamav2 `conversion/quantize.py`."""
    bits = section.number("bits", 4.0)
    default = Format(kind="bits", bits=bits, label=f"{method.upper()} {bits:g} bpw")
    head = Format(kind="bits", bits=section.number("head_bits", 6.0), label=default.label)
    return Quantization(
        method=method,
        label=default.label,
        dtype=dtype,
        default=default,
        rules=(Rule(Names(["lm_head"]), head),),
    )


def _bitnet(section: Config, method: str, dtype: str) -> Quantization:
    """Ternary weights, four to a byte. Source: transformers `integrations/bitnet.py`."""
    default = Format(kind="bits", bits=2, label="1.58-bit (BitNet)")
    rules = _plain_rule(section.texts("modules_to_not_convert"))
    return Quantization(method=method, label=default.label, dtype=dtype, default=default, rules=rules)


def _torchao(section: Config, method: str, dtype: str) -> Quantization:
    """PyTorch's torchao: linear layers alone, neither experts nor the output projection.

    Source: vLLM 0.33 `quantization/torchao.py`; the names of torchao 0.18 `quantization/quant_api.py`.
    """
    stated = section.section("quant_type").section("default")
    named = stated.section("_data").section("module_fqn_to_config")
    every = named.section("_default") if named.values else stated
    default = _torchao_form(every)
    rules = [*_plain_rule(section.texts("modules_to_not_convert")), Rule(Names([_ROUTED]), None)]
    unread = default is None and bool(every.values)
    for name, own in named.values.items():
        if name != "_default":
            form = _torchao_form(named.section(name)) if isinstance(own, dict) else None
            unread = unread or (form is None and isinstance(own, dict))
            rules.append(Rule(Names([name]), form))
    return Quantization(
        method=method,
        label=_label([default, *(rule.form for rule in rules)]) or "torchao",
        dtype=dtype,
        default=default,
        rules=tuple(rules),
        covers_towers=True,
        unread=unread,
    )


_ROUTED = "re:.*\\.experts(\\.|$)"


def _torchao_form(stated: Config) -> Format | None:
    """The layout that a configuration class of torchao's makes; None for one that is not known here."""
    kind, data = stated.text("_type"), stated.section("_data")
    if kind == "Int4WeightOnlyConfig":
        group = data.integer("group_size", default=128, least=1)
        return Format(kind="torchao", bits=4, label="INT4 (torchao)", group=group)
    if kind in {"Int8WeightOnlyConfig", "Int8DynamicActivationInt8WeightConfig"}:
        return Format(kind="int8_channel", bits=8, label="INT8 (torchao)", scale_bytes=4)
    if kind in {"Float8WeightOnlyConfig", "Float8DynamicActivationFloat8WeightConfig"}:
        a_row = "PerRow" in str(data.values.get("granularity")) or kind == "Float8WeightOnlyConfig"
        form = FP8_CHANNEL if a_row else FP8_TENSOR
        return msgspec.structs.replace(form, scale_bytes=4, label="FP8 (torchao)")
    return None


def _other(section: Config, method: str, dtype: str) -> Quantization:
    """A method that soong does not know: its bits where stated, else 16-bit tensors (never too small)."""
    bits = next(
        (section.number(key, 0.0) for key in ("bits", "w_bit", "nbits", "num_bits") if key in section), 0.0
    )
    if not 0 < bits < 16:
        return Quantization(method=method, label=method.upper(), dtype=dtype, unread=True)
    form = Format(kind="bits", bits=bits, label=f"{bits:g}-bit ({method})")
    rules = _plain_rule(section.texts("modules_to_not_convert"))
    return Quantization(method=method, label=form.label, dtype=dtype, default=form, rules=rules)


_READERS: dict[str, Callable[[Config, str, str], Quantization]] = {
    "fp8": _fp8,
    "fbgemm_fp8": _fbgemm_fp8,
    "awq": _awq,
    "gptq": _gptq,
    "auto-round": _auto_round,
    "intel/auto-round": _auto_round,
    "compressed-tensors": _compressed_tensors,
    "modelopt": _modelopt,
    "bitsandbytes": _bitsandbytes,
    "mxfp4": _mxfp4,
    "gpt-oss-mxfp4": _mxfp4,
    "mlx": _mlx,
    "quark": _quark,
    "exl2": _exl2,
    "exl3": _exl2,
    "bitnet": _bitnet,
    "torchao": _torchao,
}
