"""llama.cpp's buffers against what llama.cpp printed, and against the real one where it is installed."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from statistics import median
from typing import TYPE_CHECKING, Any

import pytest
from benchmarks.accuracy.llama_cpp import GIB, MIB, a_gpu, models, planned, served, settings, written
from msgspec.structs import replace

from soong.memory import engines
from soong.memory.engines import _llama_cache, llama_cpp
from soong.memory.engines._ggml_alloc import Graph
from soong.memory.engines._llama_weights import gpu_of_layer, layer_bytes, weights_by_gpu
from soong.memory.footprint import ServedModel, Workload
from soong.models.config_json import Config
from soong.models.families import read_architecture
from soong.models.gguf import read_gguf
from soong.models.quantization.reading import read_quantization

if TYPE_CHECKING:
    from pathlib import Path

MODELS = models()
BY_NAME = {row["name"]: row for row in MODELS}
PRINTED_MIB = 0.006
"""Two decimals are printed."""

LOOSE = {
    "lfm2": 0.07,
    "qwen35moe": 0.05,
    "qwen3next": 0.03,
    "cohere2": 0.09,
    "nemotronh": 0.012,
    "falconh1": 0.035,
}
"""Layers that the sketch of the graph simplifies: how far its compute buffer may be off."""


def of_config(name: str, **config: Any) -> ServedModel:
    read = Config(config)
    architecture = read_architecture(read)
    return ServedModel(
        key=name,
        architecture=architecture,
        quantization=read_quantization(read, dtype=architecture.dtype),
    )


LLAMA_8B = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
    "max_position_embeddings": 131072, "torch_dtype": "bfloat16",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gguf")


RUNS = [(row, run) for row in MODELS for run in row["runs"]]
RUN_NAMES = [f"{row['name']}-{run[0]}x{run[1]}-{run[2]}-{run[3]}" for row, run in RUNS]


@pytest.mark.parametrize("row", MODELS, ids=list(BY_NAME))
def test_model_buffer(folder: Path, row: dict[str, Any]) -> None:
    found = planned(folder, row, row["runs"][0])
    assert found.weights_bytes / MIB == pytest.approx(row["model_mib"], abs=PRINTED_MIB)


@pytest.mark.parametrize(("row", "run"), RUNS, ids=RUN_NAMES)
def test_caches(folder: Path, row: dict[str, Any], run: list[Any]) -> None:
    found = planned(folder, row, run)
    assert found.kv_pool_bytes / MIB == pytest.approx(run[4], abs=3 * PRINTED_MIB)
    assert found.state_bytes / MIB == pytest.approx(run[5], abs=PRINTED_MIB)


@pytest.mark.parametrize(("row", "run"), RUNS, ids=RUN_NAMES)
def test_compute_buffer(folder: Path, row: dict[str, Any], run: list[Any]) -> None:
    found = planned(folder, row, run)
    assert found.activations_bytes / MIB == pytest.approx(run[6], rel=LOOSE.get(row["name"], 0.006), abs=0.3)


def test_most_compute_buffers_are_exact(folder: Path) -> None:
    errors = sorted(abs(planned(folder, row, run).activations_bytes / MIB / run[6] - 1) for row, run in RUNS)
    assert median(errors) < 0.0005
    assert errors[int(len(errors) * 0.8)] < 0.005


class TestSeveralGpus:
    """Two equal GPUs, as the same llama.cpp split the same files."""

    def test_layers_go_in_turn_and_the_output_counts(self) -> None:
        assert [gpu_of_layer(number, 4, 2) for number in range(5)] == [0, 0, 0, 1, 1]
        assert [gpu_of_layer(number, 12, 3) for number in range(13)] == [0] * 5 + [1] * 4 + [2] * 4

    @pytest.mark.parametrize(
        ("name", "first", "second"),
        [("llama", 663.09, 753.36), ("gemma3", 1590.20, 2155.87), ("qwen3moe", 1896.43, 947.45)],
    )
    def test_model_buffers(self, folder: Path, name: str, first: float, second: float) -> None:
        model = served(written(folder, BY_NAME[name]))
        found = weights_by_gpu(model.architecture, model.quantization, 2)
        assert [size / MIB for size in found] == pytest.approx([first, second], abs=0.02)

    @pytest.mark.parametrize(("name", "mib"), [("llama", 268.04), ("qwen3moe", 228.04), ("gemma3", 277.07)])
    def test_each_input_stands_four_times(self, folder: Path, name: str, mib: float) -> None:
        model = served(written(folder, BY_NAME[name]))
        found = engines.footprint(model, a_gpu(), Workload(context_tokens=32768), settings(tensor_parallel=2))
        assert found.activations_bytes / MIB == pytest.approx(mib, rel=0.12)


class TestConfigsWithoutAFile:
    """The same figures from a config.json and the name of a mixture."""

    def test_a_published_start(self) -> None:
        """ "CUDA0 model buffer size = 4403.49 MiB" of Llama 3.1 8B in Q4_K_M, and 258.50 MiB before b9479."""
        from soong.models.gguf_mixture import mixture

        model = of_config("llama-8b", **LLAMA_8B)
        model = replace(model, key="q4", quantization=mixture(model.architecture, "Q4_K_M"))
        workload = Workload(context_tokens=4096)
        found = engines.footprint(model, a_gpu(), workload, settings(version="b9442"))
        assert found.weights_bytes / MIB == pytest.approx(4403.49, abs=0.01)
        assert found.activations_bytes / MIB == pytest.approx(258.50, abs=0.01)
        newer = engines.footprint(model, a_gpu(), workload, settings())
        assert newer.activations_bytes / MIB == pytest.approx(112.01, abs=0.02)

    def test_the_config_gives_the_file_s_graph(self, folder: Path) -> None:
        """Widths alone decide the compute buffer, however many layers there are."""
        found = engines.footprint(
            of_config("llama-8b", **LLAMA_8B), a_gpu(), Workload(context_tokens=32768), settings()
        )
        assert found.activations_bytes / MIB == pytest.approx(BY_NAME["llama"]["runs"][1][6], abs=0.02)

    def test_windows_that_llama_cpp_does_not_read(self) -> None:
        mistral = {**LLAMA_8B, "model_type": "mistral", "sliding_window": 4096}
        mistral["architectures"] = ["MistralForCausalLM"]
        workload = Workload(context_tokens=32768)
        with_window = engines.footprint(of_config("mistral", **mistral), a_gpu(), workload, settings())
        without = engines.footprint(of_config("llama-8b", **LLAMA_8B), a_gpu(), workload, settings())
        assert with_window.kv_pool_bytes == without.kv_pool_bytes


class TestRules:
    def test_a_context_beyond_the_model_s_own_is_taken(self) -> None:
        model = of_config("llama-8b", **LLAMA_8B)
        assert engines.footprint(model, a_gpu(), Workload(context_tokens=200_000), settings()).starts

    def test_what_does_not_fit_fails_to_allocate(self) -> None:
        found = engines.footprint(
            of_config("llama-8b", **LLAMA_8B), a_gpu(14), Workload(context_tokens=4096), settings()
        )
        assert not found.starts
        assert found.refusal.startswith("out of memory")

    def test_a_quantised_cache_needs_flash_attention(self) -> None:
        odd = {**LLAMA_8B, "head_dim": 136}
        workload = Workload(context_tokens=4096, kv_dtype="fp8")
        found = engines.footprint(of_config("odd", **odd), a_gpu(), workload, settings())
        assert "flash attention" in found.refusal

    def test_without_flash_attention_the_scores_stand_in_full(self) -> None:
        """At 32,768 cells llama.cpp printed 2148.01 MiB for Llama's widths with flash attention off."""
        odd = {**LLAMA_8B, "head_dim": 136}
        workload = Workload(context_tokens=32768)
        found = engines.footprint(of_config("odd", **odd), a_gpu(), workload, settings())
        assert found.activations_bytes / MIB == pytest.approx(2148.01, rel=0.01)

    def test_more_slots_need_more(self) -> None:
        needs = [
            engines.footprint(
                of_config("llama-8b", **LLAMA_8B),
                a_gpu(),
                Workload(context_tokens=8192, sequences=slots),
                settings(),
            ).need_bytes
            for slots in (1, 2, 4, 8)
        ]
        assert needs == sorted(set(needs))

    def test_the_longest_context_fits_and_a_longer_one_does_not(self) -> None:
        model = of_config("llama-8b", **LLAMA_8B)
        gpu = a_gpu(20)
        longest = engines.footprint(model, gpu, Workload(context_tokens=4096), settings()).max_context_tokens
        assert longest is not None
        step = _llama_cache.CELL_STEP_TOKENS
        assert engines.footprint(model, gpu, Workload(context_tokens=longest - step), settings()).starts
        assert not engines.footprint(
            model, gpu, Workload(context_tokens=longest + 2 * step), settings()
        ).starts

    def test_the_command(self) -> None:
        workload = Workload(context_tokens=1000, sequences=2, kv_dtype="fp8")
        argv = engines.launch_argv("model.gguf", workload, settings())
        assert argv == (
            "llama-server", "--model", "model.gguf", "--n-gpu-layers", "999", "--split-mode", "none",
            "--ctx-size", "2048", "--parallel", "2",
            "--cache-type-k", "q8_0", "--cache-type-v", "q8_0", "--flash-attn", "on",
        )  # fmt: skip

    def test_a_hub_repository_loads_no_tower_and_several_gpus_share_evenly(self) -> None:
        argv = engines.launch_argv(
            "ORG/NAME-GGUF:Q4_K_M", Workload(context_tokens=1000), settings(tensor_parallel=3)
        )
        assert argv[1:4] == ("--hf-repo", "ORG/NAME-GGUF:Q4_K_M", "--no-mmproj")
        assert argv[argv.index("--tensor-split") + 1] == "1,1,1"

    def test_a_micro_batch_beyond_the_batch_widens_the_batch(self) -> None:
        flags = settings(max_num_batched_tokens=4096)
        argv = engines.launch_argv("model.gguf", Workload(context_tokens=8192), flags)
        assert argv[argv.index("--batch-size") + 1] == argv[argv.index("--ubatch-size") + 1] == "4096"

    @pytest.mark.parametrize("kv_dtype", ["auto", "bfloat16", "float16", "fp8"])
    def test_the_parser_knows_every_flag(self, kv_dtype: str) -> None:
        workload = Workload(context_tokens=4096, sequences=3, kv_dtype=kv_dtype)
        for gpus in (1, 2):
            flags = settings(tensor_parallel=gpus, max_num_batched_tokens=4096)
            argv = engines.launch_argv("ORG/NAME-GGUF:Q4_K_M", workload, flags)
            left = list(argv[1:])
            while left:
                flag = left.pop(0)
                assert flag in ARGUMENTS
                if ARGUMENTS[flag]:
                    assert re.fullmatch(ARGUMENTS[flag], left.pop(0)), flag

    def test_a_build_before_the_rules_says_so_and_is_less_certain(self) -> None:
        model, workload, gpu = of_config("llama-8b", **LLAMA_8B), Workload(context_tokens=4096), a_gpu()
        old, new = settings(version="b4000"), settings()
        assert "b6325" in engines.remarks(model, gpu, workload, old, lacking=None)[0]
        assert engines.remarks(model, gpu, workload, new, lacking=None) == ()
        before, after = (engines.footprint(model, gpu, workload, one) for one in (old, new))
        assert before.uncertainty_bytes > after.uncertainty_bytes + before.kv_pool_bytes


ARGUMENTS = {
    "--model": ".+", "--hf-repo": r"[^/]+/[^/:]+(:\w+)?", "--no-mmproj": "", "--n-gpu-layers": r"\d+|auto|all",
    "--split-mode": "none|layer|row|tensor", "--tensor-split": r"[\d.]+([,/][\d.]+)*", "--ctx-size": r"\d+",
    "--parallel": r"[1-9]\d*", "--batch-size": r"\d+", "--ubatch-size": r"\d+",
    "--cache-type-k": "f32|f16|bf16|q8_0|q4_0|q4_1|iq4_nl|q5_0|q5_1",
    "--cache-type-v": "f32|f16|bf16|q8_0|q4_0|q4_1|iq4_nl|q5_0|q5_1", "--flash-attn": "on|off|auto",
}  # fmt: skip
"""Flags and the values that they take: `common/arg.cpp` of ggml-org/llama.cpp@0c1e57098 (build 10662)."""

PARTLY = [
    ("llama", 2, 753.36, 128.0, 257.0),
    ("llama", 3, 974.39, 256.0, 257.0),
    ("gptoss", 3, 1450.38, 65.5, 277.87),
    ("qwen3moe", 3, 1579.59, 128.0, 348.0),
    ("phi3", 3, 329.37, 768.0, 456.69),
]
"""`--n-gpu-layers`, and the buffers in MiB that the same llama.cpp printed for the GPU at 32,768 tokens."""


class TestSomeLayersOnTheCpu:
    @pytest.mark.parametrize(("name", "count", "model_mib", "kv_mib", "compute_mib"), PARTLY)
    def test_layers_count_from_the_back(
        self, folder: Path, name: str, count: int, model_mib: float, kv_mib: float, compute_mib: float
    ) -> None:
        model = served(written(folder, BY_NAME[name]))
        found = layer_bytes(model.architecture, model.quantization)
        assert sum(found[-count:]) / MIB == pytest.approx(model_mib, abs=0.05)

    @pytest.mark.parametrize(("name", "count", "model_mib", "kv_mib", "compute_mib"), PARTLY)
    def test_what_is_said_to_fit_does(
        self, folder: Path, name: str, count: int, model_mib: float, kv_mib: float, compute_mib: float
    ) -> None:
        """On a GPU that just lacks room for so many layers, fewer are named; with a layer's room to spare, as many."""
        model, workload = served(written(folder, BY_NAME[name])), Workload(context_tokens=32768)
        taken = engines.footprint(model, a_gpu(), workload, settings()).runtime_bytes
        need = taken + (model_mib + kv_mib + compute_mib) * MIB
        assert said(model, (need - MIB) / GIB, workload) < count
        spare = max(layer_bytes(model.architecture, model.quantization)) + kv_mib * MIB
        roomy = said(model, (need + spare) / GIB, workload)
        assert roomy >= count

    def test_nothing_is_said_where_not_even_the_output_fits(self, folder: Path) -> None:
        model, workload = served(written(folder, BY_NAME["llama"])), Workload(context_tokens=32768)
        assert said(model, 0.9, workload) == 0


def said(model: ServedModel, gib: float, workload: Workload) -> int:
    """The layers that a plan names; all of them where the model fits whole."""
    gpu = a_gpu(gib)
    whole = engines.footprint(model, gpu, workload, settings())
    if whole.starts:
        return 999
    remarks = engines.remarks(model, gpu, workload, settings(), lacking=whole)
    found = re.search(r"-ngl (\d+)", " ".join(remarks))
    return int(found[1]) if found else 0


class TestExplained:
    @pytest.mark.parametrize("gpus", [1, 2])
    @pytest.mark.parametrize("row", MODELS, ids=list(BY_NAME))
    def test_every_section_adds_up(self, folder: Path, row: dict[str, Any], gpus: int) -> None:
        model, workload = (
            served(written(folder, row)),
            Workload(context_tokens=6000, sequences=3, kv_dtype="fp8"),
        )
        found = engines.footprint(model, a_gpu(), workload, settings(tensor_parallel=gpus))
        lines = llama_cpp.explained(model, workload, settings(tensor_parallel=gpus))
        sums: dict[str, int] = {}
        for line in lines:
            sums[line.section] = sums.get(line.section, 0) + line.size_bytes
        assert sums["weights"] == found.weights_bytes
        assert sums.get("cache", 0) == found.kv_pool_bytes
        assert sums.get("state", 0) == found.state_bytes
        assert sums["compute"] == found.activations_bytes
        assert sums["runtime"] == found.runtime_bytes

    def test_what_stays_on_the_host_is_what_it_prints(self, folder: Path) -> None:
        """ "CPU_Mapped model buffer size = 532.31 MiB"."""
        model = served(written(folder, BY_NAME["llama"]))
        lines = llama_cpp.explained(model, Workload(context_tokens=4096), settings())
        host = sum(line.size_bytes for line in lines if line.section == "host")
        assert host / MIB == pytest.approx(532.31, abs=PRINTED_MIB)


class TestAllocator:
    def test_a_place_is_free_once_all_readers_are_done(self) -> None:
        graph = Graph()
        first = graph.add(1024)
        second = graph.add(1024, first)
        graph.add(1024, second)
        assert graph.buffer_bytes() == 2048

    def test_an_operation_may_write_over_its_operand(self) -> None:
        graph = Graph()
        first = graph.add(1024)
        graph.add(1024, first, over=True)
        assert graph.buffer_bytes() == 1024

    def test_but_not_while_another_still_reads_it(self) -> None:
        graph = Graph()
        first = graph.add(1024)
        second = graph.add(1024, first, over=True)
        graph.add(1024, first, second)
        assert graph.buffer_bytes() == 3 * 1024

    def test_the_tightest_hole_is_taken(self) -> None:
        graph = Graph()
        wide, middle, small = graph.add(4096), graph.add(256), graph.add(1024)
        last = graph.add(256, wide, small)
        graph.add(1024, middle, last)
        assert graph.buffer_bytes() == 4096 + 256 + 1024 + 256

    def test_sizes_are_rounded_to_128_bytes(self) -> None:
        graph = Graph()
        graph.add(1)
        assert graph.buffer_bytes() == 128


class TestWhatNeverStarts:
    """`common/arg.cpp` and `src/llama-context.cpp` of b10662: "n_seq_max must be <= 256"."""

    def test_more_slots_than_it_keeps(self, folder: Path) -> None:
        model = served(written(folder, BY_NAME["llama"]))
        most = engines.footprint(model, a_gpu(), Workload(context_tokens=256, sequences=256), settings())
        more = engines.footprint(model, a_gpu(), Workload(context_tokens=256, sequences=257), settings())
        assert most.starts
        assert (most.max_sequences, more.starts, more.may_start) == (256, False, False)
        assert "at most 256 sequences" in more.refusal

    def test_a_file_of_an_architecture_that_the_build_has_not(self, folder: Path) -> None:
        known = served(written(folder, BY_NAME["llama"]))
        strange = replace(
            known, architecture=replace(known.architecture, name="zorkmodel", model_type="zorkmodel")
        )
        assert engines.supports(known, a_gpu(), settings()) is None
        assert "`zorkmodel`" in (engines.supports(strange, a_gpu(), settings()) or "")
        assert engines.supports(strange, a_gpu(), settings(version="b99999")) is None

    @pytest.mark.parametrize(
        "option",
        [
            {"kv_cache_memory_bytes": GIB},
            {"memory_fraction": 0.5},
            {"max_num_seqs": 3},
            {"enforce_eager": True},
        ],
        ids=lambda option: next(iter(option)),
    )
    def test_options_that_it_has_not_are_not_swallowed(self, folder: Path, option: dict[str, Any]) -> None:
        model = served(written(folder, BY_NAME["llama"]))
        assert "leave it out" in (engines.supports(model, a_gpu(), settings(**option)) or "")


BUFFER = re.compile(r"(model|KV|RS) buffer size =\s+([\d.]+) MiB")
ASK = """
import sys, llama_cpp
model = llama_cpp.llama_load_model_from_file(sys.argv[1].encode(), llama_cpp.llama_model_default_params())
parameters = llama_cpp.llama_context_default_params()
parameters.n_ctx, parameters.n_ubatch, parameters.swa_full = 6144, 512, False
assert llama_cpp.llama_init_from_model(model, parameters)
"""


@pytest.mark.slow
@pytest.mark.skipif(find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed")
@pytest.mark.parametrize("name", ["gemma2", "lfm2", "mamba2", "phi3"])
def test_the_real_llama_cpp_prints_the_same(folder: Path, name: str) -> None:
    """llama-cpp-python on the CPU: the same tensors, caches and states, in one memory."""
    path = written(folder, BY_NAME[name])
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ASK, str(path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    sums: dict[str, float] = {}
    for kind, mib in BUFFER.findall(ran.stderr):
        sums[kind] = sums.get(kind, 0) + float(mib)
    planned = engines.footprint(served(path), a_gpu(), Workload(context_tokens=6144), settings())
    assert planned.kv_pool_bytes / MIB == pytest.approx(sums.get("KV", 0), abs=2 * PRINTED_MIB)
    assert planned.state_bytes / MIB == pytest.approx(sums.get("RS", 0), abs=PRINTED_MIB)
    assert read_gguf(path).weights_bytes / MIB == pytest.approx(sums["model"], rel=0.001)
