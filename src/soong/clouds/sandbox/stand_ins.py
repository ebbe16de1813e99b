"""What stands in for the hardware and the system on a machine of the sandbox.

`nvidia-smi` and the CUDA driver answer as the rented type would; commands that would change this computer, or
switch it off, only say that they were called. They are plain files in the machine's own folder.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from soong.clouds.sandbox.catalogue import MachineType

CUDA_ERROR_FILE = "etc/cuda-error"
"""Holds the number that every CUDA call answers with; not there: all is well."""
DRIVER_VERSION = "570.172.08"
CUDA_VERSION = 12080
"""A driver and CUDA version that fit each other; the real ones are whatever the cloud's image has."""

KEPT_OFF = (
    "shutdown", "poweroff", "halt", "reboot", "systemctl", "apt", "apt-get", "dpkg", "snap", "ufw", "iptables",
    "mount", "umount", "useradd", "usermod", "docker", "modprobe", "sysctl", "wall",
)  # fmt: skip
FAILING = ("systemctl", "docker")
"""These say no, so that a script takes its other way; the rest pretends to have worked."""

KEPT_OFF_SCRIPT = """#!/bin/sh
echo "$(date -u +%FT%TZ) {name} $*" >> "$SOONG_ROOT/var/log/kept-off.log"
echo "{name}: a rehearsal does not do this to your computer" >&2
exit {code}
"""

SUDO = """#!/bin/sh
# You are whoever runs the sandbox: options are dropped, the command is run.
while [ $# -gt 0 ]; do
  case "$1" in
    -u|-g|-C|-p) shift 2 ;;
    --) shift; break ;;
    -*) shift ;;
    *=*) export "$1"; shift ;;
    *) break ;;
  esac
done
[ $# -eq 0 ] || exec "$@"
"""

UNAME_ARM = """#!/bin/sh
case "$(basename "$0") $*" in
  arch*|"uname -m"|"uname -p"|"uname -i") echo aarch64 ;;
  "uname -a") /usr/bin/env -i PATH=/usr/bin:/bin uname -a | sed 's/x86_64/aarch64/g' ;;
  *) exec /usr/bin/env PATH=/usr/bin:/bin uname "$@" ;;
esac
"""


def furnish(root: Path, machine_type: MachineType) -> None:
    """Lay out the folder of a machine: its home, its commands and its driver."""
    for name in ("home/ubuntu", "etc", "var/log", "tmp", "bin", "lib", "opt", "run", "lambda/nfs"):
        (root / name).mkdir(parents=True, exist_ok=True)
    commands = {"sudo": SUDO, "nvidia-smi": _source("nvidia_smi_stand_in.py")}
    if machine_type.architecture == "arm64":
        commands["uname"] = commands["arch"] = UNAME_ARM
    for name in KEPT_OFF:
        commands[name] = KEPT_OFF_SCRIPT.format(name=name, code=int(name in FAILING))
    for name, text in commands.items():
        _write_command(root / "bin" / name, text)
    (root / "lib" / "sitecustomize.py").write_text(_source("cuda_stand_in.py"))
    facts = {
        "type": machine_type.name,
        "gpu": machine_type.gpu_name,
        "gpus": machine_type.gpus,
        "memory_bytes": machine_type.gpu_memory_bytes,
        "compute_capability": machine_type.compute_capability,
        "driver_version": DRIVER_VERSION,
        "cuda_version": CUDA_VERSION,
        "costs_money": False,
    }
    (root / "etc" / "sandbox.json").write_text(json.dumps(facts))


def _source(name: str) -> str:
    return Path(__file__).with_name(name).read_text()


def _write_command(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)
