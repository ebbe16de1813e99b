"""A lease is read back from the cloud as it was written, and nobody can lengthen it past its cap."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from soong.errors import UsageError
from soong.lease.lease import Lease, extended, make_lease, new_id, read_lease

NOW = 1_800_000_000
HOURS = st.floats(min_value=0.01, max_value=100)


def a_lease(hours: float = 4, cap_hours: float = 8) -> Lease:
    return make_lease(owner="ada", now=NOW + 0.7, hours=hours, cap_hours=cap_hours, lease_id="0123456789")


@given(hours=HOURS, more=st.floats(min_value=0, max_value=100))
def test_any_computer_reads_the_lease_that_was_written(hours: float, more: float) -> None:
    lease = make_lease(owner="ada-1", now=NOW, hours=hours, cap_hours=hours + more)
    assert read_lease(name=lease.instance_name, tags=lease.tags) == lease


def test_what_is_written_obeys_the_cloud() -> None:
    lease = a_lease()
    assert lease.instance_name == "soong-0123456789-u1800014400"
    assert len(lease.instance_name) <= 64
    assert lease.tags == {
        "soong-id": "0123456789",
        "soong-owner": "ada",
        "soong-launched": "1800000000",
        "soong-lease": "1800014400",
        "soong-cap": "1800028800",
    }


def test_ids_differ() -> None:
    assert len({new_id() for _ in range(1000)}) == 1000


def test_an_extension_is_read_from_the_name_alone() -> None:
    longer = extended(a_lease(), hours=2, now=NOW)
    assert longer.tags == a_lease().tags
    found = read_lease(name=longer.instance_name, tags=a_lease().tags)
    assert found is not None
    assert found.ends_at == NOW + 6 * 3600


@pytest.mark.parametrize(
    ("name", "ends_at"),
    [
        ("soong-0123456789-u1800003600", NOW + 3600),
        ("soong-0123456789-u1899999999", NOW + 8 * 3600),
        ("my precious", NOW + 4 * 3600),
        ("", NOW + 4 * 3600),
        ("soong-0123456789-u99999999999999", NOW + 4 * 3600),
        ("soong-ffffffffff-u1800003600", NOW + 4 * 3600),
    ],
    ids=["shorter", "past the cap", "renamed", "emptied", "absurd", "another's"],
)
def test_a_rename_can_shorten_and_never_pass_the_cap(name: str, ends_at: int) -> None:
    found = read_lease(name=name, tags=a_lease().tags)
    assert found is not None
    assert found.ends_at == ends_at


def test_tags_that_lag_behind_leave_the_name() -> None:
    found = read_lease(name=a_lease().instance_name, tags={})
    assert found is not None
    assert (found.id, found.owner, found.ends_at) == ("0123456789", "", NOW + 4 * 3600)
    assert found.cap_at == found.ends_at


@pytest.mark.parametrize(
    ("name", "tags"),
    [
        ("training", {}),
        ("", {}),
        ("soong-box", {"owner": "bob"}),
        ("x", {"soong-id": "0123456789"}),
        ("soong-0123456789-u12", {"soong-lease": "soon"}),
    ],
)
def test_what_is_not_ours(name: str, tags: dict[str, str]) -> None:
    assert read_lease(name=name, tags=tags) is None


@given(hours=HOURS)
def test_no_extension_passes_the_cap(hours: float) -> None:
    lease = a_lease()
    if hours > 4:
        with pytest.raises(UsageError, match="cap"):
            extended(lease, hours=hours, now=NOW)
    else:
        assert extended(lease, hours=hours, now=NOW).ends_at <= lease.cap_at


def test_the_refusal_names_what_is_left() -> None:
    with pytest.raises(UsageError) as caught:
        extended(a_lease(hours=7), hours=3, now=NOW)
    assert caught.value.hints == ("soong extend 1",)
    assert "at most 1 h" in str(caught.value)
    with pytest.raises(UsageError) as caught:
        extended(a_lease(hours=8), hours=1, now=NOW)
    assert caught.value.hints == ("soong stop",)


def test_a_lease_that_is_over_is_not_extended() -> None:
    with pytest.raises(UsageError, match="over"):
        extended(a_lease(), hours=1, now=NOW + 4 * 3600)


@pytest.mark.parametrize("hours", [0, -1, 8.5])
def test_no_lease_without_time_or_over_the_cap(hours: float) -> None:
    with pytest.raises(UsageError):
        a_lease(hours=hours)


def test_a_lease_travels_as_json() -> None:
    assert msgspec.json.decode(msgspec.json.encode(a_lease()), type=Lease) == a_lease()
