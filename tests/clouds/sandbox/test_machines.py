"""Machines of the sandbox, logged in to with the system's own ssh."""

from __future__ import annotations

import socket
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from soong.clouds.sandbox import process
from soong.clouds.sandbox.clock import BRAKE_SPEED
from soong.gpus.catalogue import find_gpu
from tests.clouds.sandbox.conftest import LAUNCH
from tests.clouds.sandbox.test_process import machine_pids, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from soong.clouds.sandbox.process import Running

pytestmark = pytest.mark.slow
pytest.importorskip("asyncssh")

USER_DATA = """#!/bin/bash
echo "root is $SOONG_ROOT"
echo once >> "$SOONG_ROOT/opt/ran"
(setsid nohup sleep 98765 >/dev/null 2>&1 &)
shutdown -h now
"""
CUDA = """
import ctypes
driver = ctypes.CDLL("libcuda.so.1")
count, device, context, address = ctypes.c_int(), ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
print(driver.cuInit(0))
print(driver.cuDeviceGetCount(ctypes.byref(count)), count.value)
for ordinal in range(count.value):
    driver.cuDeviceGet(ctypes.byref(device), ordinal)
    print(driver.cuCtxCreate_v2(ctypes.byref(context), 0, device), driver.cuMemAlloc_v2(ctypes.byref(address), 1 << 20))
    print(driver.cuMemFree_v2(address))
print(driver.cuDeviceGet(ctypes.byref(device), 99))
print(driver.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(1 << 50)))
print(ctypes.CDLL(None).getpid() > 0)
"""


class Machines(NamedTuple):
    """A sandbox with a key of ours; `at` is asked for a machine by its id."""

    running: Running
    home: Path

    def launch(self, **more: Any) -> str:
        answer = process.ask(self.running, "POST", "/api/v1/instance-operations/launch", {**LAUNCH, **more})
        instance_id = str(answer["instance_ids"][0])
        until(lambda: self.shown(instance_id)["status"] != "booting")
        return instance_id

    def shown(self, instance_id: str) -> Any:
        return process.ask(self.running, "GET", f"/api/v1/instances/{instance_id}")

    def at(self, instance_id: str) -> Any:
        return self.running.ask("GET", f"machines/{instance_id}")

    def ssh(self, instance_id: str, *words: str, options: tuple[str, ...] = (), typed: str = "") -> Any:
        return subprocess.run(
            [*self.command(instance_id, *options), *words],
            input=typed,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def command(self, instance_id: str, *options: str) -> list[str]:
        """ssh, with the host key that the sandbox tells pinned, and nothing of the developer's own."""
        machine = self.at(instance_id)
        known = self.home / f"known-{instance_id}"
        if not known.exists():
            known.write_text(f"[{machine['host']}]:{machine['port']} {machine['host_key']}\n")
        return [
            "ssh", "-F", "none", "-p", str(machine["port"]), "-i", str(self.home / "key"), *options,
            "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=yes", "-o", f"UserKnownHostsFile={known}",
            f"{machine['user']}@{machine['host']}",
        ]  # fmt: skip


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    home = tmp_path_factory.mktemp("machines")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", home / "key"], check=True)
    running = process.start(home / "sandbox", speed=3000.0)
    running.ask("POST", "settings", {"rate_limit": False})
    public = (home / "key.pub").read_text()
    process.ask(running, "POST", "/api/v1/ssh-keys", {"name": "me", "public_key": public})
    yield Machines(running, home)
    process.stop(home / "sandbox")


@pytest.fixture(scope="module")
def two_gpus(machines: Machines) -> str:
    """A machine that most tests share."""
    return machines.launch(instance_type_name="gpu_2x_h100_sxm5", user_data=USER_DATA)


def test_what_runs_there_and_how_it_ends_comes_back(machines: Machines, two_gpus: str) -> None:
    done = machines.ssh(two_gpus, "cat; echo said >&2; exit 7", typed="typed" * 20_000)
    assert (done.returncode, done.stdout, done.stderr) == (7, "typed" * 20_000, "said\n")


@pytest.mark.parametrize("kind", ["xterm", ""])
def test_a_shell_with_a_terminal(
    machines: Machines, two_gpus: str, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("TERM", kind)
    done = machines.ssh(two_gpus, "tty && exit 3", options=("-tt",))
    assert (done.returncode, done.stdout.startswith("/dev/")) == (3, True)
    assert machines.ssh(two_gpus, typed="echo from $HOME\nexit 4\n").returncode == 4


def test_its_environment_is_its_own(machines: Machines, two_gpus: str) -> None:
    seen = machines.ssh(two_gpus, "env; pwd; hostname -s >/dev/null; cat $SOONG_ROOT/etc/hostname").stdout
    root = machines.at(two_gpus)["root"]
    assert f"SOONG_ROOT={root}\n" in seen
    assert f"HOME={root}/home/ubuntu\n" in seen
    assert machines.running.key not in seen
    assert {name.split("=")[0] for name in seen.splitlines() if "=" in name} <= {
        "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TMPDIR", "HOSTNAME", "PYTHONPATH",
        "PYTHONDONTWRITEBYTECODE", "SOONG_ROOT", "PWD", "SHLVL", "OLDPWD", "_",
    }  # fmt: skip


def test_user_data_ran_once_and_could_not_switch_this_computer_off(machines: Machines, two_gpus: str) -> None:
    until(
        lambda: (
            "ended with exit code 0"
            in machines.ssh(two_gpus, "cat $SOONG_ROOT/var/log/cloud-init-output.log").stdout
        )
    )
    log = machines.ssh(two_gpus, "cat $SOONG_ROOT/var/log/cloud-init-output.log").stdout
    assert f"root is {machines.at(two_gpus)['root']}\n" in log
    assert machines.ssh(two_gpus, "cat $SOONG_ROOT/opt/ran").stdout == "once\n"
    assert "shutdown -h now" in machines.ssh(two_gpus, "cat $SOONG_ROOT/var/log/kept-off.log").stdout


def test_it_shows_the_gpus_of_its_type(machines: Machines, two_gpus: str) -> None:
    asked = "nvidia-smi --query-gpu=index,name,memory.total --format=csv,noheader,nounits"
    mib = find_gpu("h100-80gb-sxm5").memory_bytes >> 20
    lines = machines.ssh(two_gpus, asked).stdout.splitlines()
    assert lines == [f"{index}, NVIDIA H100 80GB HBM3, {mib}" for index in (0, 1)]
    with_head = machines.ssh(two_gpus, "nvidia-smi --query-gpu=memory.total --format=csv").stdout
    assert with_head.splitlines() == ["memory.total [MiB]", f"{mib} MiB", f"{mib} MiB"]
    assert len(machines.ssh(two_gpus, "nvidia-smi -L").stdout.splitlines()) == 2


def test_cuda_answers_and_other_libraries_are_real(machines: Machines, two_gpus: str) -> None:
    done = machines.ssh(two_gpus, "python3 -", typed=CUDA)
    assert done.stdout.splitlines() == ["0", "0 2", "0 0", "0", "0 0", "0", "101", "2", "True"], done.stderr


def test_cuda_802(machines: Machines, two_gpus: str) -> None:
    machines.running.ask("POST", "faults", {"name": "cuda-802", "instance": two_gpus})
    until(lambda: machines.ssh(two_gpus, "python3 -", typed=CUDA).stdout.startswith("802\n3 0\n"))
    assert len(machines.ssh(two_gpus, "nvidia-smi -L").stdout.splitlines()) == 2


def test_only_the_key_of_the_launch_and_the_one_user_get_in(machines: Machines, two_gpus: str) -> None:
    command = machines.command(two_gpus)
    as_root = [*command[:-1], command[-1].replace("ubuntu@", "root@"), "true"]
    assert subprocess.run(as_root, capture_output=True, timeout=30, check=False).returncode == 255
    other = machines.home / "other"
    if not other.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
    command[command.index("-i") + 1] = str(other)
    assert subprocess.run([*command, "true"], capture_output=True, timeout=30, check=False).returncode == 255


def test_a_forwarded_port_reaches_a_server(machines: Machines, two_gpus: str) -> None:
    class Hello(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Hello) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        place = machines.home / "forward.sock"
        tunnel = subprocess.Popen(
            [*machines.command(two_gpus, "-N", "-L", f"{place}:127.0.0.1:{server.server_address[1]}")]
        )
        try:
            until(place.exists)
            with socket.socket(socket.AF_UNIX) as line:
                line.settimeout(20)
                line.connect(str(place))
                line.sendall(b"GET / HTTP/1.0\r\n\r\n")
                answer = b"".join(iter(lambda: line.recv(4096), b""))
            assert answer.endswith(b"\r\n\r\nhello")
        finally:
            tunnel.terminate()
            tunnel.wait(10)
            server.shutdown()
            thread.join()


def test_files_can_be_copied(machines: Machines, two_gpus: str) -> None:
    command = machines.command(two_gpus)
    source = machines.home / "source"
    source.write_text("content")
    copy = [
        "scp",
        "-q",
        "-P",
        command[command.index("-p") + 1],
        *command[5:-1],
        str(source),
        f"{command[-1]}:copied",
    ]
    subprocess.run([word for word in copy if word != "none"], check=True, timeout=30)
    assert machines.ssh(two_gpus, "cat copied").stdout == "content"


def test_user_data_that_is_no_script_is_not_run(machines: Machines) -> None:
    instance_id = machines.launch(user_data="#cloud-config\nruncmd: [touch, /tmp/never]\n")
    until(
        lambda: (
            "does not begin with #!"
            in machines.ssh(instance_id, "cat $SOONG_ROOT/var/log/*output.log").stdout
        )
    )


def test_the_clock_slows_while_somebody_is_about_to_log_in(machines: Machines, two_gpus: str) -> None:
    until(lambda: machines.running.ask("GET", "clock")["pace"] == 3000.0)
    machines.running.ask("GET", f"machines/{two_gpus}?for=login")
    assert machines.running.ask("GET", "clock")["pace"] == BRAKE_SPEED
    machines.ssh(two_gpus, "true")
    until(lambda: machines.running.ask("GET", "clock")["pace"] == 3000.0)


def test_an_arm_machine_says_so(machines: Machines) -> None:
    arm = machines.launch(instance_type_name="gpu_1x_gh200")
    assert machines.ssh(arm, "uname -m; arch; uname -s").stdout == "aarch64\naarch64\nLinux\n"
    assert "GH200" in machines.ssh(arm, "nvidia-smi -L").stdout


def test_a_machine_without_ssh_is_active_all_the_same(machines: Machines) -> None:
    machines.running.ask("POST", "faults", {"name": "no-ssh"})
    silent = machines.launch()
    assert (machines.shown(silent)["status"], machines.at(silent)["port"]) == ("active", None)


def test_another_host_key_on_the_same_port_is_refused(machines: Machines) -> None:
    instance_id = machines.launch()
    before = machines.at(instance_id)
    assert machines.ssh(instance_id, "true").returncode == 0
    machines.running.ask("POST", "faults", {"name": "changed-host-key", "instance": instance_id})
    until(
        lambda: (
            machines.at(instance_id)["port"] and machines.at(instance_id)["host_key"] != before["host_key"]
        )
    )
    assert machines.at(instance_id)["port"] == before["port"]
    done = machines.ssh(instance_id, "true")
    assert done.returncode == 255
    assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in done.stderr


def test_a_restart_keeps_the_folder_the_key_and_the_port(machines: Machines) -> None:
    instance_id = machines.launch(user_data=USER_DATA)
    before = machines.at(instance_id)
    until(lambda: machines.ssh(instance_id, "cat $SOONG_ROOT/opt/ran").stdout == "once\n")
    body = {"instance_ids": [instance_id]}
    process.ask(machines.running, "POST", "/api/v1/instance-operations/restart", body)
    until(
        lambda: machines.shown(instance_id)["status"] == "active" and bool(machines.at(instance_id)["port"])
    )
    assert machines.at(instance_id) == before
    assert machines.ssh(instance_id, "cat $SOONG_ROOT/opt/ran").stdout == "once\n"


def test_the_end_of_a_machine_ends_everything_on_it(machines: Machines) -> None:
    instance_id = machines.launch(user_data=USER_DATA)
    folder = machines.home / "sandbox" / "machines" / instance_id
    until(lambda: machines.ssh(instance_id, "pgrep -f 'sleep 98765'").returncode == 0)
    open_shell = subprocess.Popen([*machines.command(instance_id), "sleep 4321"])
    until(lambda: len(machine_pids(folder.parent)) >= 2)
    process.ask(
        machines.running, "POST", "/api/v1/instance-operations/terminate", {"instance_ids": [instance_id]}
    )
    assert open_shell.wait(20) == 255
    until(lambda: not [pid for pid in machine_pids(folder.parent) if _is_of(pid, folder)])
    until(lambda: not folder.exists())


def _is_of(pid: int, folder: Path) -> bool:
    from pathlib import Path as File

    try:
        return f"SOONG_ROOT={folder}\0".encode() in File(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
