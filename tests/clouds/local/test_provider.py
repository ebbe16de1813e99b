"""This computer as a cloud: real processes are started, listed, and proved gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import msgspec
import pytest

from soong.clouds.local import processes
from soong.errors import NotFoundError
from soong.launch.provider import LaunchRefusedError
from tests.clouds.local.conftest import request

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from soong.clouds.local.provider import LocalProvider
    from tests.clouds.local.conftest import HandClock

    Computer = Callable[..., LocalProvider]

DETACHED = """#!/bin/bash
cd "$HOME"
setsid nohup sleep 300 > /dev/null 2>&1 < /dev/null &
echo $! > detached
setsid bash -c 'env -i /bin/sleep 300 & echo $! > stripped; wait' > /dev/null 2>&1 < /dev/null &
trap '' TERM
(trap '' TERM; while :; do sleep 0.2; done) > /dev/null 2>&1 < /dev/null &
echo $! > stubborn
while [ ! -s stripped ]; do sleep 0.02; done
"""


def _alive(pid: int) -> bool:
    """Whether it runs: a dead one that nobody waited for does not."""
    said = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, check=False, text=True)
    return bool(said.stdout.strip()) and not said.stdout.startswith("Z")


def _status(provider: LocalProvider, instance_id: str) -> str:
    return next(one.status for one in provider.instances() if one.id == instance_id)


@pytest.mark.slow
def test_the_end_takes_everything_that_was_started_there(
    computer: Computer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "TERM_SECONDS", 0.5)
    provider = computer()
    machine = provider.launch(request(user_data=DETACHED))
    home = provider.machine(machine).home
    pids = [int((home / name).read_text()) for name in ("detached", "stripped", "stubborn")]
    assert all(map(_alive, pids))
    assert _status(provider, machine) == "active"
    provider.terminate(machine)
    assert not any(map(_alive, pids))
    assert _status(provider, machine) == "terminated"
    assert not home.exists()


def test_a_process_that_cannot_be_ended_keeps_the_machine_in_the_list(
    computer: Computer, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = computer()
    machine = provider.launch(
        request(user_data="#!/bin/bash\nsetsid sleep 300 > /dev/null 2>&1 < /dev/null &\n")
    )
    root = provider.machine(machine).root
    (pid,) = processes.living(machine)
    with monkeypatch.context() as patched:
        patched.setattr(processes, "TERM_SECONDS", 0.1)
        patched.setattr(processes, "KILL_SECONDS", 0.1)
        patched.setattr(os, "kill", lambda *_: None)
        provider.terminate(machine)
    assert _status(provider, machine) == "terminating"
    assert root.exists()
    assert provider.offers()[0].available is False
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while _status(provider, machine) != "terminated" and time.monotonic() < deadline:
        time.sleep(0.02)
    assert _status(provider, machine) == "terminated"


def test_others_are_left_alone(computer: Computer) -> None:
    provider = computer("rtx4090-24gb", "rtx4090-24gb")
    script = "#!/bin/bash\nsetsid sleep 300 > /dev/null 2>&1 < /dev/null &\n"
    one, two = (provider.launch(request("1x-rtx4090-24gb", user_data=script)) for _ in range(2))
    bystander = subprocess.Popen(["sleep", "300"])
    provider.terminate(one)
    assert bystander.poll() is None
    assert processes.living(two)
    bystander.kill()
    bystander.wait()


def test_it_survives_a_restart_of_soong_and_not_of_the_computer(
    computer: Computer, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = computer().launch(request())
    again = computer()
    assert _status(again, machine) == "active"
    monkeypatch.setattr(processes, "boot_id", lambda: "another boot")
    assert _status(again, machine) == "terminated"
    assert again.offers()[0].available is True


def test_one_processor_serves_one_machine_at_a_time(computer: Computer) -> None:
    provider = computer()
    (offer,) = provider.offers()
    assert (offer.instance_type, offer.gpu, offer.available, offer.region, offer.usd_per_hour) == (
        "cpu", "cpu", True, "here", 0.0,
    )  # fmt: skip
    machine = provider.launch(request())
    assert [(one.available, one.region) for one in provider.offers()] == [(False, None)]
    with pytest.raises(LaunchRefusedError, match="in use") as refused:
        provider.launch(request())
    assert refused.value.refusal == "no-capacity"
    provider.terminate(machine)
    assert provider.offers()[0].available is True


def test_gpus_are_shared_out_and_each_machine_sees_its_own(computer: Computer) -> None:
    provider = computer("rtx4090-24gb", "rtx4090-24gb", "a100-80gb-sxm4")
    types = {one.instance_type: one.available for one in provider.offers()}
    assert types == {"1x-rtx4090-24gb": True, "2x-rtx4090-24gb": True, "1x-a100-80gb-sxm4": True}
    first = provider.launch(request("1x-rtx4090-24gb"))
    assert {one.instance_type: one.available for one in provider.offers()} == {
        "1x-rtx4090-24gb": True, "2x-rtx4090-24gb": False, "1x-a100-80gb-sxm4": True,
    }  # fmt: skip
    second = provider.launch(request("1x-rtx4090-24gb"))
    third = provider.launch(request("1x-a100-80gb-sxm4"))
    shown = [
        provider.machine(one).run(["sh", "-c", "echo $CUDA_VISIBLE_DEVICES"]).out.strip()
        for one in (first, second, third)
    ]
    assert shown == ["0", "1", "2"]


def test_a_card_in_use_by_others_is_not_offered(computer: Computer) -> None:
    provider = computer("rtx4090-24gb", problem="other programs use 9 GiB")
    assert [one.available for one in provider.offers()] == [False]
    assert provider.problems == (f"GPU 0 ({provider.gpus[0].name}): other programs use 9 GiB",)


def test_a_boot_script_that_fails_leaves_nothing(computer: Computer) -> None:
    provider = computer()
    script = "#!/bin/bash\nsetsid sleep 300 > /dev/null 2>&1 < /dev/null &\necho no room >&2\nexit 3\n"
    with pytest.raises(LaunchRefusedError, match="could not start") as refused:
        provider.launch(request(user_data=script))
    assert "ended with 3: no room" in refused.value.why
    (machine,) = provider.instances()
    assert machine.status == "terminated"


def test_name_and_tags_are_kept_and_the_name_can_change(computer: Computer) -> None:
    machine = computer().launch(request(name="soong-one"))
    computer().rename(machine, "soong-two")
    (shown,) = computer().instances()
    assert (shown.name, shown.tags) == ("soong-two", {"soong-id": "0123456789"})
    for wrong in (computer().rename, lambda word, _: computer().terminate(word)):
        with pytest.raises(NotFoundError, match="no machine"):
            wrong("here-00000000", "x")


def test_what_ended_is_forgotten_after_an_hour(computer: Computer, clock: HandClock) -> None:
    provider = computer()
    provider.terminate(provider.launch(request()))
    clock.sleep(3500)
    provider.terminate(provider.launch(request()))
    assert len(provider.instances()) == 2
    clock.sleep(200)
    provider.terminate(provider.launch(request()))
    assert len(provider.instances()) == 2


def test_launches_of_several_processes_do_not_take_the_same_gpu(computer: Computer, tmp_path: Path) -> None:
    provider = computer("rtx4090-24gb", "rtx4090-24gb", "rtx4090-24gb")
    program = (
        "import sys; from pathlib import Path\n"
        "from tests.clouds.local.conftest import hardware, request\n"
        "from soong.clouds.local.provider import LocalProvider\n"
        "found = hardware(*['rtx4090-24gb'] * 3)\n"
        f"here = LocalProvider(Path({str(provider.records.folder)!r}), found=found)\n"
        "print(here.launch(request('1x-rtx4090-24gb')))\n"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    for child in children:
        child.communicate()
    taken = [record.cards for record in provider.records.all()]
    assert sorted(taken) == [(0,), (1,), (2,)]
    assert msgspec.json.decode(msgspec.json.encode(provider.records.all()))
