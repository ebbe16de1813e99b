"""What a new machine runs first. No secret stands in it: the cloud keeps it, and any shell there can read it."""

from __future__ import annotations

SCRIPT = """\
#!/bin/bash
# Tells whoever logs in whose machine this is and what ends it. Safe to run again.
set -eu
root="${SOONG_ROOT:-}"
mkdir -p "$root/etc"
cat > "$root/etc/motd" <<'NOTICE'

This machine was rented by soong and ends with its lease: `soong status` on the computer that rented it tells when.
Shutting it down from here does not end the billing; `soong stop` does.

NOTICE
"""
