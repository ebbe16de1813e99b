"""What stands in the files: the plan's command, the GPU by the tool's name, secrets by name, an end, a probe."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.exports.conftest import Ended

    Export = Callable[..., Ended]

ONE = ("llama-3.1-8b", "--gpu", "a100-80gb-sxm4", "--engine", "vllm")
MANY_GPUS = ("llama-3.1-70b", "--gpu", "gpu_8x_a100_80gb_sxm4")
SPANNING = (
    "llama-3.1-70b", "--gpu", "h100-80gb-sxm5", "--gpu-count", "16", "--tensor-parallel", "8",
    "--pipeline-parallel", "2",
)  # fmt: skip
REPLICAS = ("qwen2.5-7b", "--gpu", "a100-80gb-sxm4", "--replicas", "3")
GGUF = ("qwen2.5-7b", "--engine", "llama.cpp", "--gpu", "a10-24gb")
GATED = ("llama-3.1-8b", "--gpu", "a6000-48gb")
CASES = {"one": ONE, "tp": MANY_GPUS, "nodes": SPANNING, "replicas": REPLICAS, "gguf": GGUF, "gated": GATED}
IMPOSSIBLE = {("compose", "nodes"), ("shell", "replicas")}
TOOLS = ("skypilot", "dstack", "kubernetes", "compose", "shell")
MATRIX = [(tool, case) for tool in TOOLS for case in CASES if (tool, case) not in IMPOSSIBLE]


def _scripts(tool: str, text: str) -> list[str]:
    """The scripts of a file, as the tool's shell will see them."""
    if tool == "shell":
        return [text]
    documents: list[Any] = list(yaml.safe_load_all(text))
    if tool == "skypilot":
        return [documents[0]["run"]]
    if tool == "dstack":
        return list(documents[0]["commands"])
    if tool == "compose":
        return [service["command"][0].replace("$$", "$") for service in documents[0]["services"].values()]
    return [pod["spec"]["containers"][0]["command"][2] for pod in _pods(documents)]


def _pods(documents: list[Any]) -> list[Any]:
    found = []
    for document in documents:
        if document["kind"] == "Deployment":
            found.append(document["spec"]["template"])
        if document["kind"] == "LeaderWorkerSet":
            template = document["spec"]["leaderWorkerTemplate"]
            found += [template["leaderTemplate"], template["workerTemplate"]]
    return found


def _words(script: str) -> list[str]:
    """The words of the engine's command."""
    command = script[script.index("set -- ") + len("set -- ") :]
    return shlex.split(command.replace("\\\n", " ").split("\n", 1)[0])


@pytest.mark.parametrize(("tool", "case"), MATRIX)
def test_the_engine_runs_as_planned(export: Export, tool: str, case: str) -> None:
    """Every word that the plan has, in its order; only the program's own place differs between images."""
    ended = export(tool, *CASES[case], "--json")
    found = ended.json
    planned = found["engine_argv"]
    for script in _scripts(tool, found["content"]):
        words = _words(script)
        assert words[1 : len(planned)] == planned[1:]
        assert words[0] in {planned[0], f"/app/{planned[0]}", "python3"}
        assert words[len(planned)] == "--host"


@pytest.mark.parametrize(("tool", "case"), MATRIX)
def test_no_key_no_engine_and_no_value_of_a_secret(
    export: Export, tool: str, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOONG_API_KEY", "sk-value-of-the-key")
    monkeypatch.setenv("HF_TOKEN", "hf_value_of_the_token")
    text = export(tool, *CASES[case]).out
    assert "value-of-the" not in text
    assert "value_of_the" not in text
    for script in _scripts(tool, text):
        assert script.index(': "${SOONG_API_KEY:?') < script.index("set -- ")
        assert ("HF_TOKEN:?" in script) == (case in {"gated", "one"})
        assert "--api-key" not in _words(script)


@pytest.mark.parametrize("case", CASES)
def test_skypilot(export: Export, case: str) -> None:
    task = yaml.safe_load(export("skypilot", *CASES[case], "--idle", "20m", "--hours", "3").out)
    assert task["resources"]["autostop"] == {"idle_minutes": 20, "down": True}
    assert all(value is None for value in task["secrets"].values())
    assert ("HF_TOKEN" in task["secrets"]) == (case in {"gated", "one"})
    assert task.get("num_nodes", 1) == (2 if case == "nodes" else 1)
    if case == "replicas":
        assert task["service"]["replicas"] == 3
        assert task["service"]["readiness_probe"]["path"] == "/health"
        assert task["resources"]["ports"] == 8000
    else:
        assert "service" not in task
        assert "ports" not in task["resources"]
        assert task["run"].rstrip().endswith('exec timeout --kill-after=60 10800 "$@"')


def test_skypilot_takes_any_of_a_gpus_names(export: Export) -> None:
    found = yaml.safe_load(export("skypilot", *GATED).out)["resources"]
    assert found["accelerators"] == {"A6000": 1, "RTXA6000": 1}
    assert "infra" not in found
    pinned = yaml.safe_load(export("skypilot", *GATED, "--cloud", "lambda", "--max-price", "2").out)[
        "resources"
    ]
    assert pinned["infra"] == "lambda"
    assert pinned["max_hourly_cost"] == 2


@pytest.mark.parametrize("case", CASES)
def test_dstack(export: Export, case: str) -> None:
    found = yaml.safe_load(export("dstack", *CASES[case], "--hours", "90m", "--idle", "5m").out)
    assert found["max_duration"] == "5400s"
    assert found["idle_duration"] == "5m"
    assert found["env"]["SOONG_API_KEY"] == "${{ secrets.SOONG_API_KEY }}"
    assert ("HF_TOKEN" in found["env"]) == (case in {"gated", "one"})
    assert found["resources"]["gpu"]["count"] == {"tp": 8, "nodes": 8}.get(case, 1)
    if case == "nodes":
        assert (found["type"], found["nodes"], found["ports"]) == ("task", 2, [8000])
    else:
        assert found["type"] == "service"
        assert found["auth"] is False
        assert found["probes"][0]["url"] == "/health"
        assert found["replicas"] == (3 if case == "replicas" else 1)


@pytest.mark.parametrize("case", CASES)
def test_kubernetes(export: Export, case: str) -> None:
    documents: list[Any] = list(yaml.safe_load_all(export("kubernetes", *CASES[case]).out))
    by_kind = {document["kind"]: document for document in documents}
    assert ("LeaderWorkerSet" in by_kind) == (case == "nodes")
    assert ("PersistentVolumeClaim" in by_kind) == (case not in {"nodes", "replicas"})
    main = by_kind.get("LeaderWorkerSet") or by_kind["Deployment"]
    assert main["spec"]["replicas"] == (3 if case == "replicas" else 1)
    pod = _pods(documents)[0]["spec"]
    engine = pod["containers"][0]
    assert engine["resources"]["limits"]["nvidia.com/gpu"] == {"tp": "8", "nodes": "8"}.get(case, "1")
    assert list(pod["nodeSelector"]) == ["nvidia.com/gpu.product"]
    key = engine["env"][0]
    assert key == {
        "name": "SOONG_API_KEY",
        "valueFrom": {"secretKeyRef": {"name": main["metadata"]["name"], "key": "SOONG_API_KEY"}},
    }
    startup = engine["startupProbe"]
    assert startup["httpGet"]["path"] == engine["readinessProbe"]["httpGet"]["path"] == "/health"
    assert startup["failureThreshold"] * startup["periodSeconds"] >= 900
    assert by_kind["Service"]["spec"]["selector"].items() <= _pods(documents)[0]["metadata"]["labels"].items()


def test_a_larger_model_is_given_longer_to_start(export: Export) -> None:
    thresholds = []
    for words in (REPLICAS, SPANNING):
        documents = list(yaml.safe_load_all(export("kubernetes", *words).out))
        thresholds.append(_pods(documents)[0]["spec"]["containers"][0]["startupProbe"]["failureThreshold"])
    assert thresholds[0] < thresholds[1]


def test_only_the_leader_of_several_machines_is_asked(export: Export) -> None:
    """And the lease may touch that one set, nothing else."""
    documents = list(yaml.safe_load_all(export("kubernetes", *SPANNING, "--replicas", "2").out))
    group = next(document for document in documents if document["kind"] == "LeaderWorkerSet")
    template = group["spec"]["leaderWorkerTemplate"]
    assert (group["spec"]["replicas"], template["size"]) == (2, 2)
    leader, worker = (
        template[kind]["spec"]["containers"][0] for kind in ("leaderTemplate", "workerTemplate")
    )
    assert "readinessProbe" in leader
    assert "readinessProbe" not in worker
    service = next(document for document in documents if document["kind"] == "Service")
    assert service["spec"]["selector"]["role"] == "leader"
    assert service["metadata"]["name"] != group["metadata"]["name"]  # that of its own headless Service
    rules = next(document for document in documents if document["kind"] == "Role")["rules"]
    assert [rule["resources"] for rule in rules] == [["jobs"], ["leaderworkersets/scale"]]
    assert all(rule["resourceNames"] for rule in rules)


LEADER_WORKER_SET = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "leaderworkerset.x-k8s.io/v1"},
        "kind": {"const": "LeaderWorkerSet"},
        "metadata": {"type": "object"},
        "spec": {
            "type": "object",
            "required": ["leaderWorkerTemplate"],
            "additionalProperties": False,
            "properties": {
                "replicas": {"type": "integer"},
                "networkConfig": {"type": "object"},
                "rolloutStrategy": {"type": "object"},
                "startupPolicy": {"enum": ["LeaderCreated", "LeaderReady"]},
                "leaderWorkerTemplate": {
                    "type": "object",
                    "required": ["workerTemplate"],
                    "additionalProperties": False,
                    "properties": {
                        "size": {"type": "integer"},
                        "restartPolicy": {
                            "enum": [
                                "Default",
                                "None",
                                "RecreateGroupOnPodRestart",
                                "RecreateGroupAfterStart",
                            ]
                        },
                        "leaderTemplate": {"type": "object"},
                        "workerTemplate": {"type": "object"},
                        "subGroupPolicy": {"type": "object"},
                        "volumeClaimTemplates": {"type": "array"},
                        "persistentVolumeClaimRetentionPolicy": {"type": "object"},
                    },
                },
            },
        },
    },
}
"""The fields of LeaderWorkerSet's own definition (release 0.7, spec alone, pods left open): tests/exports/test_parsers
holds the pods to Kubernetes' schema."""


def test_leader_worker_set_has_only_fields_that_there_are(export: Export) -> None:
    import jsonschema  # type: ignore[import-untyped]

    documents = list(yaml.safe_load_all(export("kubernetes", *SPANNING).out))
    jsonschema.validate(documents[0], LEADER_WORKER_SET)


@pytest.mark.parametrize("engine", ["sglang", "vllm"])
@pytest.mark.parametrize("tool", ["skypilot", "dstack", "kubernetes", "shell"])
def test_engines_meet_over_several_machines(export: Export, tool: str, engine: str) -> None:
    for script in _scripts(tool, export(tool, *SPANNING, "--engine", engine).out):
        assert "--nnodes 2" in script
        assert '--node-rank "$rank"' in script
        if engine == "sglang":
            assert '--dist-init-addr "$leader:29501"' in script
        else:
            assert '--master-addr "$leader" --master-port 29501' in script
            assert 'if [ "$rank" -gt 0 ]; then set -- "$@" --headless; fi' in script


@pytest.mark.parametrize("case", [case for case in CASES if case != "nodes"])
def test_compose(export: Export, case: str) -> None:
    found = yaml.safe_load(export("compose", *CASES[case]).out)
    services = list(found["services"].values())
    assert len(services) == (3 if case == "replicas" else 1)
    assert [service["ports"][0] for service in services] == [
        f"127.0.0.1:{8000 + place}:8000" for place in range(len(services))
    ]
    devices = [service["deploy"]["resources"]["reservations"]["devices"][0] for service in services]
    if case == "replicas":
        assert [device["device_ids"] for device in devices] == [["0"], ["1"], ["2"]]
    else:
        assert devices[0]["count"] == (8 if case == "tp" else 1)
    assert found["secrets"]["SOONG_API_KEY"] == {"environment": "SOONG_API_KEY"}
    assert services[0]["restart"] == "no"
    assert "timeout --kill-after=60 14400" in services[0]["command"][0]


def test_a_cloud_where_soong_does_not_rent(export: Export) -> None:
    """The tools do; what they call it stands in the file, and a tool that does not rent there says so."""
    words = ("llama-3.1-8b", "--gpu", "h100-80gb-sxm5", "--cloud", "runpod")
    assert yaml.safe_load(export("skypilot", *words).out)["resources"]["infra"] == "runpod"
    assert yaml.safe_load(export("dstack", *words).out)["backends"] == ["runpod"]
    refused = export("skypilot", "llama-3.1-8b", "--gpu", "h100-80gb-sxm5", "--cloud", "crusoe")
    assert refused.code == 2
    assert "soong export dstack llama-3.1-8b --cloud crusoe" in refused.err


def test_machines_that_may_be_taken_away_are_asked_for_by_name(export: Export) -> None:
    spot = yaml.safe_load(export("skypilot", *GATED, "--spot").out)
    assert spot["resources"]["use_spot"] is True
    assert yaml.safe_load(export("dstack", *GATED, "--spot").out)["spot_policy"] == "auto"
    assert yaml.safe_load(export("dstack", *GATED).out)["spot_policy"] == "on-demand"


def test_the_head_tells_what_when_and_for_how_much(export: Export) -> None:
    text = export("skypilot", *GATED, "--hours", "2").out
    head = " ".join(line[1:].strip() for line in text.splitlines() if line.startswith("#"))
    assert (
        "llama-3.1-8b (FP16) on 1x RTX A6000, sglang 0.5.23, 8,192 tokens of context, one sequence." in head
    )
    assert "soong export skypilot llama-3.1-8b --gpu a6000-48gb --hours 2" in head
    assert "$1.09 an hour for gpu_1x_a6000 of lambda" in head
    assert "$2.18 for 2h" in head


def test_machines_together_cost_their_sum(export: Export) -> None:
    """Two of eight H100 at the packaged price of one."""
    assert export("kubernetes", *SPANNING, "--json").json["usd_per_hour"] == pytest.approx(2 * 31.92)


def test_nothing_that_is_typed_ends_a_comment(export: Export) -> None:
    text = export("skypilot", *GATED, "--max-price", "9\nrun: evil").out
    assert "\nrun: evil" not in text


@pytest.mark.parametrize(
    ("words", "machines", "each"),
    [
        (("--gpu-count", "16", "--tensor-parallel", "16"), 2, 8),
        (("--gpu-count", "16", "--tensor-parallel", "4", "--pipeline-parallel", "4"), 2, 8),
        (("--gpu-count", "12", "--tensor-parallel", "4", "--pipeline-parallel", "3"), 3, 4),
        (
            (
                "--gpu-count",
                "8",
                "--tensor-parallel",
                "4",
                "--pipeline-parallel",
                "2",
                "--gpus-per-machine",
                "4",
            ),
            2,
            4,
        ),
        (("--gpu-count", "4", "--tensor-parallel", "4"), 1, 4),
    ],
)
def test_gpus_are_spread_over_like_machines(
    export: Export, words: tuple[str, ...], machines: int, each: int
) -> None:
    found = export("kubernetes", "llama-3.1-70b", "--gpu", "h100-80gb-sxm5", *words, "--json").json
    assert (found["machines"], found["gpus_per_machine"]) == (machines, each)
