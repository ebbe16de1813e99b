"""The sandbox speaks Lambda's API: every answer in this folder is held against the official specification."""

from __future__ import annotations

import base64
import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from soong.clouds.sandbox import api
from tests.clouds.sandbox.conftest import A_WHILE, LAUNCH, PUBLIC_KEY
from tests.clouds.spec import GOLDEN

if TYPE_CHECKING:
    from pathlib import Path

    from tests.clouds.sandbox.conftest import Account

RULE = {"protocol": "tcp", "port_range": [80, 80], "source_network": "10.0.0.0/8", "description": "web"}


def test_the_sandbox_has_every_operation_of_the_reduced_specification() -> None:
    document = json.loads(GOLDEN.read_text(encoding="utf-8"))
    wanted = {
        (method.upper(), path.removeprefix("/api/v1"))
        for path, methods in document["paths"].items()
        for method in methods
        if method in {"get", "post", "put", "patch", "delete"}
    }
    assert wanted - set(api.ROUTES) == set()


class TestKeys:
    @pytest.mark.parametrize("form", ["Bearer {key}", "bearer {key}", "Basic {user}", "Basic {key}"])
    def test_each_documented_form_opens(self, account: Account, form: str) -> None:
        key = account.sandbox.key
        user = base64.b64encode(f"{key}:".encode()).decode()
        assert account.ask("GET", "/instances", auth=form.format(key=key, user=user)).status == 200

    @pytest.mark.parametrize(
        "auth", ["", "Bearer", "Bearer wrong", "Basic wrong", "Basic d3Jvbmc6", "Digest x"]
    )
    @pytest.mark.parametrize("path", ["/instances", "/sandbox/clock"])
    def test_nothing_else_does(self, account: Account, auth: str, path: str) -> None:
        answer = account.ask("GET", path, auth=auth)
        assert (answer.status, answer.code) == (401, "global/invalid-api-key")


class TestLaunchRules:
    @pytest.mark.parametrize(
        "wrong",
        [
            {"tags": [{"key": "Upper", "value": "x"}]},
            {"tags": [{"key": "a", "value": "x"}]},
            {"tags": [{"key": "under_score", "value": "x"}]},
            {"tags": [{"key": "k" * 56, "value": "x"}]},
            {"tags": [{"key": "good", "value": "v" * 129}]},
            {"ssh_key_names": []},
            {"ssh_key_names": ["me", "you"]},
            {"name": "n" * 65},
            {"user_data": "x" * 1_000_001},
            {"hostname": "Upper"},
            {"quantity": 1},
            {"region_name": "mars-1"},
            {"instance_type_name": "gpu_1x_dream"},
            {"file_system_mounts": [{"mount_point": "/etc", "file_system_id": "x"}]},
        ],
        ids=lambda wrong: next(iter(wrong)),
    )
    def test_one_bad_field_refuses_the_whole_launch(self, account: Account, wrong: dict[str, Any]) -> None:
        answer = account.launch_refusal(**wrong)
        assert (answer.status, answer.code) == (400, "global/invalid-parameters")
        assert account.get("/instances") == []

    @pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"region_name": "us-east-1"}'])
    def test_a_body_that_is_none_is_refused(self, account: Account, body: bytes) -> None:
        answer = account.ask("POST", "/instance-operations/launch", body)
        assert answer.code == "global/invalid-parameters"

    def test_the_longest_that_is_allowed_is_taken(self, account: Account) -> None:
        account.launch(
            name="n" * 64,
            user_data="x" * 1_000_000,
            tags=[{"key": "k" * 55, "value": "v" * 128}, {"key": "a:b-1", "value": ""}],
        )

    @pytest.mark.parametrize(
        "missing",
        [
            {"ssh_key_names": ["nobody"]},
            {"file_system_names": ["nothing"]},
            {"firewall_rulesets": [{"id": "none"}]},
            {"image": {"id": "none"}},
        ],
        ids=lambda missing: next(iter(missing)),
    )
    def test_what_does_not_exist_is_named(self, account: Account, missing: dict[str, Any]) -> None:
        answer = account.launch_refusal(**missing)
        assert (answer.status, answer.code) == (400, "global/object-does-not-exist")

    def test_a_filesystem_elsewhere_is_said_before_want_of_capacity(self, account: Account) -> None:
        account.post("/filesystems", {"name": "data", "region": "us-west-1"})
        account.settings(capacity={"gpu_1x_a10": False})
        refusal = account.launch_refusal(file_system_names=["data"])
        assert refusal.code == "instance-operations/launch/file-system-in-wrong-region"

    def test_two_keys_of_one_name_break_a_launch(self, account: Account) -> None:
        account.post("/ssh-keys", {"name": "me", "public_key": PUBLIC_KEY})
        assert account.launch_refusal().code == "global/unknown"
        assert account.get("/instances") == []


class TestLife:
    def test_from_launch_to_nothing(self, account: Account) -> None:
        tags = [{"key": "soong-id", "value": "0123456789"}]
        instance_id = account.launch(name="first", tags=tags)
        (booting,) = account.get("/instances")
        assert (booting["status"], booting["name"], booting["tags"]) == ("booting", "first", tags)
        assert "ip" not in booting
        assert booting["actions"]["terminate"] == {
            "available": False,
            "reason_code": "vm-has-not-launched",
            "reason_description": "The instance has not launched yet.",
        }
        account.skip(A_WHILE)
        active = account.get(f"/instances/{instance_id}")
        assert (active["status"], active["ip"]) == ("active", "127.0.0.1")
        assert active["actions"]["terminate"] == {"available": True}
        (ended,) = account.terminate(instance_id).data["terminated_instances"]
        assert ended["status"] == "terminating"
        account.skip(60)
        assert account.status(instance_id) == "terminated"
        account.skip(A_WHILE)
        assert account.get("/instances") == []
        assert account.ask("GET", f"/instances/{instance_id}").code == "global/object-does-not-exist"
        assert account.terminate(instance_id).code == "global/object-does-not-exist"

    def test_a_machine_cannot_be_ended_in_its_first_seconds(self, account: Account) -> None:
        instance_id = account.launch()
        assert account.terminate(instance_id).status == 400
        account.skip(30)
        assert account.status(instance_id) == "booting"
        assert account.terminate(instance_id).status == 200

    def test_ending_twice_is_fine_and_moves_nothing(self, account: Account) -> None:
        instance_id = account.launch()
        account.skip(A_WHILE)
        account.terminate(instance_id)
        account.skip(20)
        account.terminate(instance_id)
        account.skip(15)
        assert account.status(instance_id) == "terminated"

    def test_one_unknown_id_ends_nothing(self, account: Account) -> None:
        instance_id = account.launch()
        account.skip(A_WHILE)
        assert account.terminate(instance_id, "ffff").status == 404
        assert account.status(instance_id) == "active"

    @pytest.mark.parametrize(
        ("name", "least_minutes", "most_minutes"), [("gpu_1x_a10", 3, 5), ("gpu_8x_h100_sxm5", 18, 32)]
    )
    def test_big_machines_take_longer_to_boot(
        self, account: Account, name: str, least_minutes: float, most_minutes: float
    ) -> None:
        instance_id = account.launch(instance_type_name=name)
        account.skip((least_minutes - 0.5) * 60)
        assert account.status(instance_id) == "booting"
        account.skip((most_minutes - least_minutes + 0.6) * 60)
        assert account.status(instance_id) == "active"

    def test_only_the_name_can_change(self, account: Account) -> None:
        instance_id = account.launch(tags=[{"key": "soong-id", "value": "x"}])
        renamed = account.post(f"/instances/{instance_id}", {"name": "other", "tags": []})
        assert (renamed["name"], len(renamed["tags"])) == ("other", 1)
        assert account.ask("POST", f"/instances/{instance_id}", {"name": "n" * 65}).status == 400
        assert account.ask("POST", "/instances/nobody", {"name": "x"}).status == 404

    def test_restart(self, account: Account) -> None:
        instance_id = account.launch()
        body = {"instance_ids": [instance_id]}
        refused = account.ask("POST", "/instance-operations/restart", body)
        assert (refused.status, refused.code) == (409, "global/conflict")
        account.skip(A_WHILE)
        (restarted,) = account.post("/instance-operations/restart", body)["restarted_instances"]
        assert restarted["status"] == "booting"
        account.skip(120)
        assert account.status(instance_id) == "active"


class TestRateLimit:
    def test_a_second_request_in_the_same_second_is_refused(self, bare: Account) -> None:
        assert bare.ask("GET", "/regions").status == 200
        assert bare.ask("GET", "/regions").status == 429
        bare.skip(1)
        assert bare.ask("GET", "/regions").status == 200

    def test_a_second_launch_within_twelve(self, bare: Account) -> None:
        bare.post("/ssh-keys", {"name": "me", "public_key": PUBLIC_KEY})
        bare.skip(1)
        bare.launch()
        bare.skip(5)
        assert bare.launch_refusal().status == 429
        bare.skip(7)
        bare.launch()


class TestTheRestOfTheAccount:
    def test_types_are_a_map_at_the_packaged_prices(self, account: Account) -> None:
        types = account.get("/instance-types")
        h100 = types["gpu_8x_h100_sxm5"]["instance_type"]
        assert (h100["price_cents_per_hour"], h100["specs"]["gpus"]) == (3192, 8)
        assert h100["description"] == "8x H100 (80 GB SXM5)"
        assert types["gpu_1x_gh200"]["instance_type"]["architecture"] == "arm64"

    def test_capacity_follows_what_is_said(self, account: Account) -> None:
        def where() -> list[str]:
            found = account.get("/instance-types")["gpu_1x_a10"]["regions_with_capacity_available"]
            return [region["name"] for region in found]

        usual = where()
        account.settings(capacity={"gpu_1x_a10": False})
        assert where() == []
        refusal = account.launch_refusal()
        assert refusal.code == "instance-operations/launch/insufficient-capacity"
        account.settings(capacity={"gpu_1x_a10/me-west-1": True})
        assert where() == ["me-west-1"]
        account.settings(capacity={"gpu_1x_a10/me-west-1": None, "gpu_1x_a10": None})
        assert where() == usual

    def test_prices_follow_what_is_said_and_machines_keep_theirs(self, account: Account) -> None:
        instance_id = account.launch()
        account.settings(cents={"gpu_1x_a10": 200})
        listed = account.get("/instance-types")["gpu_1x_a10"]["instance_type"]
        assert listed["price_cents_per_hour"] == 200
        rented = account.get(f"/instances/{instance_id}")["instance_type"]
        assert rented["price_cents_per_hour"] == 129

    def test_the_wave_moves_and_can_be_repeated(self, account: Account) -> None:
        def free() -> set[tuple[str, str]]:
            return {
                (name, region["name"])
                for name, item in account.get("/instance-types").items()
                for region in item["regions_with_capacity_available"]
            }

        account.settings(wave_seed=7)
        first = free()
        account.skip(A_WHILE)
        second = free()
        account.settings(wave_seed=8)
        other = free()
        account.settings(wave_seed=7)
        assert free() == second
        assert len({frozenset(first), frozenset(second), frozenset(other)}) == 3

    def test_ssh_keys(self, account: Account, tmp_path: Path) -> None:
        pair = account.post("/ssh-keys", {"name": "made"})
        path = tmp_path / "key"
        path.touch(mode=0o600)
        path.write_text(pair["private_key"])
        shown = subprocess.run(["ssh-keygen", "-y", "-f", path], capture_output=True, text=True, check=True)
        assert shown.stdout.split()[:2] == pair["public_key"].split()[:2]
        assert all("private_key" not in key for key in account.get("/ssh-keys"))
        assert account.ask("DELETE", f"/ssh-keys/{pair['id']}").data == {}
        assert account.ask("DELETE", f"/ssh-keys/{pair['id']}").status == 404
        assert [key["name"] for key in account.get("/ssh-keys")] == ["me"]
        assert account.ask("POST", "/ssh-keys", {"name": "bad", "public_key": "hello"}).status == 400

    def test_filesystems(self, account: Account) -> None:
        made = account.post("/filesystems", {"name": "data", "region": "us-east-1"})
        assert (
            account.ask("POST", "/filesystems", {"name": "data", "region": "us-east-1"}).code
            == "global/duplicate"
        )
        assert account.ask("POST", "/filesystems", {"name": "1data", "region": "us-east-1"}).status == 400
        assert account.ask("POST", "/file-systems", {"name": "x", "region": "us-east-1"}).status == 405
        instance_id = account.launch(file_system_names=["data"])
        assert account.get("/instances")[0]["file_system_names"] == ["data"]
        assert account.get("/file-systems")[0]["is_in_use"]
        assert account.ask("DELETE", f"/filesystems/{made['id']}").code == "filesystems/filesystem-in-use"
        account.skip(A_WHILE)
        account.terminate(instance_id)
        account.skip(A_WHILE)
        assert account.ask("DELETE", f"/filesystems/{made['id']}").data == {"deleted_ids": [made["id"]]}
        assert account.ask("DELETE", f"/filesystems/{made['id']}").status == 404

    def test_mounts_keep_the_name_of_their_filesystem(self, account: Account) -> None:
        made = account.post("/filesystems", {"name": "data", "region": "us-east-1"})
        mount = {"mount_point": "/data/here", "file_system_id": made["id"]}
        account.launch(file_system_mounts=[mount])
        (instance,) = account.get("/instances")
        assert (instance["file_system_names"], instance["file_system_mounts"]) == (["data"], [mount])

    def test_firewall_rules(self, account: Account) -> None:
        assert [rule["protocol"] for rule in account.get("/firewall-rules")] == ["tcp", "icmp"]
        assert account.ask("PUT", "/firewall-rules", {"data": [RULE]}).data == [RULE]
        assert account.get("/firewall-rulesets/global")["rules"] == [RULE]
        assert account.ask("PATCH", "/firewall-rulesets/global", {"rules": []}).data["rules"] == []
        bad = {**RULE, "source_network": "everywhere"}
        assert account.ask("PUT", "/firewall-rules", {"data": [bad]}).status == 400
        without = {key: value for key, value in RULE.items() if key != "port_range"}
        assert account.ask("PUT", "/firewall-rules", {"data": [without]}).status == 400

    def test_firewall_rulesets(self, account: Account) -> None:
        made = account.post("/firewall-rulesets", {"name": "web", "region": "us-east-1", "rules": [RULE]})
        path = f"/firewall-rulesets/{made['id']}"
        assert account.ask("PATCH", path, {"name": "wide"}).data["name"] == "wide"
        instance_id = account.launch(firewall_rulesets=[{"id": made["id"]}])
        assert account.get(path)["instance_ids"] == [instance_id]
        assert account.ask("DELETE", path).code == "firewall-rulesets/firewall-ruleset-in-use"
        account.skip(A_WHILE)
        account.terminate(instance_id)
        assert account.ask("DELETE", path).data == {}
        assert account.ask("GET", path).code == "global/object-does-not-exist"
        assert account.get("/firewall-rulesets") == []

    def test_images_and_regions(self, account: Account) -> None:
        images = account.get("/images")
        assert {image["architecture"] for image in images} == {"x86_64", "arm64"}
        assert len(account.get("/regions")) == 13
        account.launch(image={"id": images[0]["id"]})

    def test_the_audit_log_knows_when_and_comes_in_pages(self, account: Account) -> None:
        instance_id = account.launch()
        (launched,) = account.ask("GET", "/audit-events?resource_type=cloud.instance").json["data"]
        assert launched["action"] == "launched"
        assert launched["resource_lrns"] == [f"lrn:cloud:instance:{instance_id}"]
        assert launched["event_time"].endswith("Z")
        for _ in range(120):
            account.sandbox.world.note("instance", "seen", instance_id)
        page = account.ask("GET", "/audit-events").json
        assert (len(page["data"]), page["page_token"]) == (100, "100")
        rest = account.ask("GET", "/audit-events?page_token=100").json
        assert rest["page_token"] is None
        assert account.ask("GET", "/audit-events?page_token=x").status == 400
        assert account.ask("GET", "/audit-events?end=2020-01-01T00:00:00Z").json["data"] == []

    @pytest.mark.parametrize("path", ["/nothing", "/instances/a/b", "/"])
    def test_what_is_not_there(self, account: Account, path: str) -> None:
        assert account.ask("GET", path).status == 404

    def test_the_date_of_an_answer_is_the_sandboxs(self, account: Account) -> None:
        account.skip(40 * 86400)
        from email.utils import parsedate_to_datetime

        date = parsedate_to_datetime(account.ask("GET", "/regions").headers["Date"]).timestamp()
        assert abs(date - account.get("/sandbox/clock")["now"]) < 5


def test_without_asyncssh_machines_exist_and_say_what_is_missing(account: Account) -> None:
    instance_id = account.launch()
    account.skip(A_WHILE)
    machine = account.get(f"/sandbox/machines/{instance_id}")
    assert (account.status(instance_id), machine["port"]) == ("active", None)
    assert "soong[sandbox]" in machine["why_no_ssh"]


def test_the_log_of_requests_has_neither_key_nor_user_data(account: Account) -> None:
    account.launch(user_data="#!/bin/bash\necho planted-secret\n")
    *_, asked = [one for one in account.get("/sandbox/requests") if one["path"].endswith("/launch")]
    assert asked["body"]["instance_type_name"] == LAUNCH["instance_type_name"]
    written = account.sandbox.files.requests.read_text()
    assert "planted-secret" not in written
    assert account.sandbox.key not in written
