"""Lambda's answers in soong's words: states, offers, keys, addresses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from soong.clouds import open_provider
from soong.errors import CredentialError, NotFoundError, RemoteError, UsageError
from soong.launch.provider import Instance, Provider, SshEndpoint
from tests.clouds import samples
from tests.clouds.conftest import KEY
from tests.clouds.server import Reply, data, error

if TYPE_CHECKING:
    from soong.clouds.lambda_cloud.provider import LambdaProvider
    from tests.clouds.server import FakeLambda


def test_it_is_a_provider(provider: LambdaProvider) -> None:
    as_promised: Provider = provider
    assert (as_promised.cloud, as_promised.costs_money) == ("lambda", True)
    assert as_promised.console_url == "https://cloud.lambda.ai/instances"
    assert len(as_promised.account) == 8


def test_an_instance(server: FakeLambda, provider: LambdaProvider) -> None:
    server.on("GET", "/instances", data([samples.instance()]))
    assert provider.instances() == (
        Instance(
            id="0920582c7ff041399e34823a0be62549",
            name="soong-0123456789-u1800000000",
            status="active",
            raw_status="active",
            address="198.51.100.2",
            instance_type="gpu_1x_a10",
            region="us-west-1",
            gpu_count=1,
            usd_per_hour=1.29,
            tags={"soong-id": "0123456789"},
            ssh_key_names=("my-key",),
        ),
    )


@pytest.mark.parametrize("word", ["defrosting", "ACTIVE", "", None, "unknown"])
def test_a_state_that_nobody_knows_is_billing(
    server: FakeLambda, provider: LambdaProvider, word: str | None
) -> None:
    server.on("GET", "/instances", data([{**samples.instance(), "status": word}], off_spec=True))
    found = provider.instances()[0]
    assert found.status == "unknown"
    assert found.raw_status == (word or "")
    assert found.is_billing


@pytest.mark.parametrize("word", ["booting", "active", "unhealthy", "terminating", "preempted"])
def test_every_state_but_one_is_billing(server: FakeLambda, provider: LambdaProvider, word: str) -> None:
    server.on(
        "GET", "/instances", data([samples.instance(status=word), samples.instance(status="terminated")])
    )
    assert [(found.status, found.is_billing) for found in provider.instances()] == [
        (word, True),
        ("terminated", False),
    ]


def test_a_machine_that_cannot_be_ended_yet_says_so(server: FakeLambda, provider: LambdaProvider) -> None:
    busy = {"available": False, "reason_code": "vm-has-not-launched", "reason_description": "wait"}
    actions = {**samples.instance()["actions"], "terminate": busy}
    server.on("GET", "/instances", data([samples.instance(actions=actions)]))
    assert not provider.instances()[0].can_terminate


def test_names_cannot_steer_a_terminal(server: FakeLambda, provider: LambdaProvider) -> None:
    server.on("GET", "/instances", data([samples.instance(name="\x1b[2Jcolleague\r\n")]))
    assert provider.instances()[0].name == "[2Jcolleague"


def test_ending_what_is_not_there(server: FakeLambda, provider: LambdaProvider) -> None:
    server.on("POST", "/instance-operations/terminate", error("global/object-does-not-exist", 404))
    with pytest.raises(NotFoundError):
        provider.terminate("0920582c7ff041399e34823a0be62549")


# ── offers ───────────────────────────────────────────────────────────────────────────────────────


def test_offers_say_which_gpu_where_and_for_how_much(server: FakeLambda, provider: LambdaProvider) -> None:
    kinds = samples.types(
        (samples.A10, [samples.REGION, samples.OTHER_REGION]),
        (samples.GH200, []),
        (samples.H100, [samples.REGION]),
    )
    server.on("GET", "/instance-types", data(kinds))
    offers = provider.offers()
    assert [(o.gpu, o.gpu_count, o.region, o.available, o.usd_per_hour) for o in offers] == [
        ("a10-24gb", 1, "us-west-1", True, 1.29),
        ("a10-24gb", 1, "us-east-1", True, 1.29),
        ("gh200-96gb", 1, None, False, 2.29),
        ("h100-80gb-sxm5", 8, "us-west-1", True, 31.92),
    ]
    assert [o.cpu_architecture for o in offers] == ["x86_64", "x86_64", "arm64", "x86_64"]
    assert {(o.live, o.cloud, o.as_of) for o in offers} == {(True, "lambda", "2027-01-15")}


@pytest.mark.parametrize(
    ("name", "words", "gpu", "architecture"),
    [
        ("gpu_4x_h200_sxm5", "H200 (141 GB SXM5)", "h200-141gb-sxm5", "x86_64"),
        ("gpu_2x_gh200_new", "GH200 (96 GB)", "gh200-96gb", "arm64"),
        ("gpu_1x_zeta", "Zeta 9000 (300 GB SXM9)", "zeta-9000-300-gb-sxm9", "x86_64"),
        ("gpu_1x_h100_pcie_16gb", "H100 (16 GB PCIe)", "h100-16-gb-pcie", "x86_64"),
        ("gpu_1x_nameless", "", "gpu-1x-nameless", "x86_64"),
        ("gpu_1x_odd", "???", "unknown-gpu", "x86_64"),
    ],
)
def test_a_new_type_is_shown_with_the_gpu_its_words_tell(
    server: FakeLambda, provider: LambdaProvider, name: str, words: str, gpu: str, architecture: str
) -> None:
    kind = samples.instance_type(name, words, 999)
    server.on("GET", "/instance-types", data(samples.types((kind, [samples.REGION]))))
    offer = provider.offers()[0]
    assert (offer.gpu, offer.cpu_architecture) == (gpu, architecture)


def test_a_known_type_keeps_its_gpu_whatever_the_words(server: FakeLambda, provider: LambdaProvider) -> None:
    kinds = [
        samples.instance_type(name, "???", 229, gpus=2) for name in ("gpu_1x_gh200", "gpu_8x_a100_80gb_sxm4")
    ]
    server.on("GET", "/instance-types", data(samples.types(*((kind, []) for kind in kinds))))
    assert [(o.gpu, o.gpu_count, o.cpu_architecture) for o in provider.offers()] == [
        ("gh200-96gb", 2, "arm64"),
        ("a100-80gb-sxm4", 2, "x86_64"),
    ]


def test_what_cannot_be_rented_for_models_is_left_out(server: FakeLambda, provider: LambdaProvider) -> None:
    cpu = samples.instance_type("cpu_4x_general", "(16 GiB)", 20, gpus=0)
    free = {**samples.A10, "name": "gpu_1x_free", "price_cents_per_hour": None}
    broken = {"instance_type": "?"}
    kinds = {**samples.types((cpu, [samples.REGION]), (samples.A10, []), (free, [])), "broken": broken}
    server.on("GET", "/instance-types", data(kinds, off_spec=True))
    assert [offer.instance_type for offer in provider.offers()] == ["gpu_1x_a10"]


@pytest.mark.parametrize(
    "reply", [data({}), data([], off_spec=True), data({"a": 1}, off_spec=True), data(None, off_spec=True)]
)
def test_an_empty_price_list_is_never_no_capacity(
    server: FakeLambda, provider: LambdaProvider, reply: Reply
) -> None:
    server.on("GET", "/instance-types", reply)
    with pytest.raises(RemoteError):
        provider.offers()


def test_the_empty_price_list_is_named(server: FakeLambda, provider: LambdaProvider) -> None:
    server.on("GET", "/instance-types", data({}))
    with pytest.raises(RemoteError, match="empty price list"):
        provider.offers()


# ── keys, filesystems, addresses ─────────────────────────────────────────────────────────────────

MINE = {"id": "k1", "name": "mine", "public_key": "ssh-ed25519 AAAAmine me@laptop"}


def test_a_key_that_is_there_is_not_added_twice(server: FakeLambda, provider: LambdaProvider) -> None:
    server.on("GET", "/ssh-keys", data([MINE]))
    assert provider.add_ssh_key("other-name", "ssh-ed25519 AAAAmine me@desk\n").name == "mine"
    assert server.asked("POST", "/ssh-keys") == []


def test_two_keys_of_one_name_are_prevented(server: FakeLambda, provider: LambdaProvider) -> None:
    server.on("GET", "/ssh-keys", data([MINE]))
    with pytest.raises(UsageError, match="another SSH key"):
        provider.add_ssh_key("mine", "ssh-ed25519 AAAAother")
    assert server.asked("POST", "/ssh-keys") == []


def test_a_new_key_is_added(server: FakeLambda, provider: LambdaProvider) -> None:
    server.on("GET", "/ssh-keys", data([]))
    server.on("POST", "/ssh-keys", data(MINE))
    assert provider.add_ssh_key("mine", MINE["public_key"]).id == "k1"


@pytest.mark.parametrize("bytes_used", [7, None])
def test_filesystems(server: FakeLambda, provider: LambdaProvider, bytes_used: int | None) -> None:
    raw = {"id": "f1", "name": "models", "region": samples.REGION, "bytes_used": bytes_used}
    server.on("GET", "/file-systems", data([raw], off_spec=True))
    found = provider.filesystems()[0]
    assert (found.region, found.is_in_use, found.bytes_used) == ("us-west-1", False, bytes_used)


def test_where_ssh_answers(provider: LambdaProvider) -> None:
    booting = Instance(id="i", name="n", status="booting")
    assert provider.ssh_endpoint(booting) is None
    up = Instance(id="i", name="n", status="active", address="198.51.100.2")
    assert provider.ssh_endpoint(up) == SshEndpoint(host="198.51.100.2", port=22, user="ubuntu")


@pytest.mark.parametrize(
    "address", ["-oProxyCommand=touch /tmp/x", "example.com", "1.2.3.4; rm", "::1%eth0 x"]
)
def test_an_address_is_never_an_option(provider: LambdaProvider, address: str) -> None:
    with pytest.raises(RemoteError, match="no address"):
        provider.ssh_endpoint(Instance(id="i", name="n", status="active", address=address))


# ── opening ──────────────────────────────────────────────────────────────────────────────────────


def test_opening_follows_the_settings(server: FakeLambda, monkeypatch: pytest.MonkeyPatch) -> None:
    server.on("GET", "/instances", data([]))
    monkeypatch.setenv("SOONG_LAMBDA_API_URL", server.url)
    monkeypatch.setenv("SOONG_LAMBDA_API_KEY", KEY)
    assert open_provider("lambda").instances() == ()
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


def test_opening_without_a_key_says_where_it_belongs() -> None:
    with pytest.raises(CredentialError, match="no key") as caught:
        open_provider("lambda")
    assert "soong configure" in caught.value.hints
