"""soong's own client at the sandbox: the one that rents at Lambda, and nothing of it is another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from soong.clouds import open_provider
from soong.clouds.lambda_cloud.provider import LambdaProvider
from soong.clouds.sandbox import process
from soong.errors import NotFoundError
from soong.launch.provider import LaunchRefusedError, LaunchRequest, LaunchUnclearError
from tests.clouds.sandbox.conftest import PUBLIC_KEY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from soong.clouds.sandbox.provider import SandboxProvider
    from soong.launch.provider import Instance

pytestmark = pytest.mark.slow
REQUEST = LaunchRequest(
    instance_type="gpu_1x_a10",
    region="us-east-1",
    name="soong-0123456789-u1800000000",
    tags={"soong-id": "0123456789"},
    ssh_key_name="me",
)


@pytest.fixture
def provider() -> Iterator[SandboxProvider]:
    """As `--cloud sandbox` opens it: started on demand in soong's state directory."""
    opened = open_provider("sandbox")
    yield opened  # type: ignore[misc]
    process.stop()


def fault(provider: SandboxProvider, name: str) -> None:
    provider.running.ask("POST", "faults", {"name": name})


def test_the_whole_life_of_a_machine(provider: SandboxProvider) -> None:
    assert isinstance(provider, LambdaProvider)
    assert (provider.cloud, provider.costs_money) == ("sandbox", False)
    provider.add_ssh_key("me", PUBLIC_KEY)
    offers = provider.offers()
    assert {offer.cloud for offer in offers} == {"sandbox"}
    assert any(offer.instance_type == "gpu_1x_a10" and offer.region == "us-east-1" for offer in offers)
    instance_id = provider.launch(REQUEST)
    found = _wait_for(provider, instance_id, "active")
    assert (found.usd_per_hour, found.tags) == (1.29, REQUEST.tags)
    endpoint = provider.ssh_endpoint(found)
    assert endpoint is not None
    assert (endpoint.host, endpoint.user) == ("127.0.0.1", "ubuntu")
    provider.rename(instance_id, "soong-0123456789-u1800003600")
    provider.terminate(instance_id)
    assert _wait_for(provider, instance_id, "terminated").name == "soong-0123456789-u1800003600"
    with pytest.raises(NotFoundError):
        provider.terminate("0" * 32)


def test_two_that_open_it_share_one_account_and_one_time(provider: SandboxProvider) -> None:
    other = open_provider("sandbox")
    assert other.account == provider.account
    assert other.clock.now() == pytest.approx(provider.clock.now(), abs=600)


def test_what_a_launch_may_answer(provider: SandboxProvider) -> None:
    provider.add_ssh_key("me", PUBLIC_KEY)
    fault(provider, "no-capacity")
    with pytest.raises(LaunchRefusedError) as refused:
        provider.launch(REQUEST)
    assert refused.value.refusal == "no-capacity"
    for name in ("lost-request", "provider-error", "unknown-error"):
        fault(provider, name)
        with pytest.raises(LaunchUnclearError):
            provider.launch(REQUEST)
        assert provider.instances() == ()
    for count, name in enumerate(("lost-answer", "provider-error-launched"), 1):
        fault(provider, name)
        with pytest.raises(LaunchUnclearError):
            provider.launch(REQUEST)
        assert len(provider.instances()) == count


def _wait_for(provider: SandboxProvider, instance_id: str, status: str) -> Instance:
    ends_at = provider.clock.now() + 2 * 3600
    while True:
        (found,) = [one for one in provider.instances() if one.id == instance_id]
        if found.status == status:
            return found
        assert provider.clock.now() < ends_at, found
        provider.clock.sleep(5)
