"""What a new machine runs first: the warden, armed with the lease, before anything is installed or downloaded.

No secret stands in it: the cloud keeps it, and any shell there can read it. The warden makes its token itself.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from soong.lease.clock import Clock
    from soong.lease.lease import Lease

MOST_BYTES = 100_000
"""Ours; the largest user data that Lambda takes is ten times that (its specification says 1 MB)."""

SCRIPT = """\
#!/bin/bash
# Puts soong's warden on this machine and arms it with the lease. Safe to run again: the lease that is in force stays.
set -eu
umask 022
root="${SOONG_ROOT:-}"
folder="$root/opt/soong"
mkdir -p "$folder" "$root/etc"

user="$(id -un)"
if [ "$user" = root ] && [ -z "$root" ]; then
  if id -u ubuntu >/dev/null 2>&1; then
    user=ubuntu
  else
    first="$(awk -F: '$3 >= 1000 && $3 < 60000 { print $1; exit }' /etc/passwd)"
    user="${first:-root}"
  fi
fi

cat > "$folder/.warden.new" <<'END_OF_WARDEN'
@WARDEN@END_OF_WARDEN
mv -f "$folder/.warden.new" "$folder/warden.py"

if [ ! -s "$folder/lease.json" ]; then
  cat > "$folder/.lease.new" <<'END_OF_LEASE'
@LEASE@
END_OF_LEASE
  mv -f "$folder/.lease.new" "$folder/lease.json"
fi

cat > "$folder/arm.sh" <<'END_OF_ARM'
#!/bin/bash
# Starts the warden if it does not run.
cd "$(dirname "$0")" || exit 1
detached=$(command -v setsid || true)
# shellcheck disable=SC2086 # nothing, where there is no setsid
nohup $detached python3 "$PWD/warden.py" run >> warden.log 2>&1 < /dev/null &
END_OF_ARM
chmod 755 "$folder/arm.sh"

if [ ! -s "$folder/motd" ]; then
  printf '\\nThis machine was rented by soong and ends with its lease.\\n\\n' > "$folder/motd"
fi
ln -sfn "$folder/motd" "$root/etc/motd"

if [ -z "$root" ] && [ "$(id -u)" = 0 ]; then
  chown -R "$user" "$folder"
fi
if [ -z "$root" ] && [ "$(id -u)" = 0 ] && [ -d /run/systemd/system ]; then
  cat > /etc/systemd/system/soong-warden.service <<END_OF_UNIT
[Unit]
Description=Keeps the lease of this machine

[Service]
User=$user
Environment=PYTHONUNBUFFERED=1
ExecStart=/usr/bin/env python3 $folder/warden.py run
Restart=always
RestartSec=5
# What it starts again after a reboot shall outlive it.
KillMode=process
OOMScoreAdjust=-900

[Install]
WantedBy=multi-user.target
END_OF_UNIT
  systemctl daemon-reload
  systemctl enable soong-warden.service
  systemctl restart soong-warden.service
elif [ "$user" != "$(id -un)" ]; then
  su -s /bin/bash "$user" -c "$folder/arm.sh"
else
  "$folder/arm.sh"
fi
"""


def user_data(lease: Lease, clock: Clock | None = None) -> str:
    """The boot script of a machine with this lease.

    Args:
        clock: what the lease is counted by; one with a `file` (a rehearsal's) is named to the warden, any other is the
            machine's own.

    Returns:
        A bash script without any secret.
    """
    warden = resources.files("soong").joinpath("connect/remote/warden.py").read_text(encoding="utf-8")
    script = SCRIPT.replace("@WARDEN@", warden).replace("@LEASE@", json.dumps(lease_file(lease, clock)))
    size = len(script.encode())
    if size > MOST_BYTES:
        raise ValueError(f"the boot script has {size} bytes, over {MOST_BYTES}")
    return script


def lease_file(lease: Lease, clock: Clock | None = None) -> dict[str, Any]:
    """The lease as the warden reads it from `lease.json`, and by `warden.py lease`."""
    told: dict[str, Any] = {
        "id": lease.id,
        "owner": lease.owner,
        "ends_at": lease.ends_at,
        "cap_at": lease.cap_at,
    }
    file = getattr(clock, "file", None)
    return {**told, "clock": {"file": str(file)}} if file is not None else told
