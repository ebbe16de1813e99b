"""A script for any machine that has the GPUs and the engine: checks, starts, waits, ends in time."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import msgspec

from soong import units
from soong.errors import UsageError
from soong.exports import launching
from soong.exports.deployment import PORT
from soong.exports.header import header
from soong.serve import command

if TYPE_CHECKING:
    from soong.exports.deployment import Deployment

RANK, LEADER = '"$NODE_RANK"', '"$MASTER_ADDR"'

CHECK_NODES = """\
: "${{NODE_RANK:?is the number of this machine, 0 to {last}}}"
: "${{MASTER_ADDR:?is the address of machine 0, which the others can reach}}"
"""

CHECK_PROGRAM = """\
for program in {program} curl timeout; do
  command -v "$program" > /dev/null || {{
    echo "$program is not installed; the engine is {engine}" >&2
    exit 69
  }}
done
"""

CHECK_GPUS = """\
gpus="$(nvidia-smi --query-gpu=index --format=csv,noheader 2> /dev/null | wc -l)" || gpus=0
if [ "$gpus" -lt {count} ]; then
  echo "this machine has $gpus GPUs; the plan needs {count} {gpu}" >&2
  exit 69
fi
"""

WAIT = """\
engine=$!
trap 'kill -TERM "$engine" 2> /dev/null || true' INT TERM HUP
give_up=$(($(date +%s) + {deadline}))
{begin}until curl --fail --silent --max-time 5 --output /dev/null http://127.0.0.1:{port}/health; do
  kill -0 "$engine" 2> /dev/null || break
  if [ "$(date +%s)" -ge "$give_up" ]; then
    echo "the engine did not answer within {deadline} seconds" >&2
    kill -TERM "$engine"
    break
  fi
  sleep 1
done
kill -0 "$engine" 2> /dev/null && echo "ready: http://127.0.0.1:{port}/v1, for {hours}" >&2
{end}code=0
wait "$engine" || code=$?
while kill -0 "$engine" 2> /dev/null; do
  code=0
  wait "$engine" || code=$?
done
if [ "$code" -eq 124 ]; then
  code=0
fi
echo "the engine has ended (code $code); the machine bills until whoever rents it ends it" >&2
if [ -n "${{SOONG_AT_END:-}}" ]; then
  sh -c "$SOONG_AT_END"
fi
exit "$code"
"""


def written(deployment: Deployment) -> str:
    """The script; of a plan that spans machines, it runs on each of them.

    Raises:
        UsageError: replicas are asked for.
    """
    if deployment.wishes.replicas > 1:
        raise UsageError(
            "a script serves one replica",
            hints=(
                "run it on each machine, without `--replicas`",
                "the same with `compose` or `kubernetes` in place of `shell`",
            ),
        )
    loopback = tuple(command.LOOPBACK if word == "0.0.0.0" else word for word in deployment.argv)  # noqa: S104
    here = msgspec.structs.replace(deployment, argv=loopback)
    parts = ["#!/bin/sh\n", _head(deployment), "set -eu\n"]
    if deployment.nodes > 1:
        parts.append(CHECK_NODES.format(last=deployment.nodes - 1))
    parts.append(CHECK_PROGRAM.format(program=shlex.quote(deployment.argv[0]), engine=_install(deployment)))
    if deployment.gpu.vendor == "nvidia":
        parts.append(CHECK_GPUS.format(count=deployment.gpus_per_node, gpu=deployment.gpu.name))
    run = f"timeout --kill-after=60 {deployment.seconds}"
    parts.append(launching.script(here, rank=RANK, leader=LEADER, run=run).rstrip() + " &\n")
    return "".join(parts) + _wait(deployment)


def _wait(deployment: Deployment) -> str:
    first_only = deployment.nodes > 1
    return WAIT.format(
        deadline=deployment.deadline_seconds,
        port=PORT,
        hours=units.format_hours(deployment.wishes.hours),
        begin='if [ "$rank" -eq 0 ]; then\n' if first_only else "",
        end="fi\n" if first_only else "",
    )


def _install(deployment: Deployment) -> str:
    """What people install, where it is known."""
    try:
        needs = command.requirements_of(
            deployment.engine, deployment.version, deployment.gpu.cpu_architecture
        )
    except UsageError:
        return f"{deployment.engine} {deployment.version}"
    if needs.launcher:  # installed so, it is not on the PATH under its own name
        return f"{deployment.engine} {deployment.version}"
    return f"{deployment.engine} {deployment.version}: pip install {' '.join(needs.packages)}"


def _head(deployment: Deployment) -> str:
    secrets = launching.secrets_of(deployment)
    start = [f"export {name}=..." for name in secrets]
    if deployment.nodes > 1:
        start += ["export NODE_RANK=0 MASTER_ADDR=10.0.0.1   # on each machine its own number"]
    return header(
        deployment,
        start=[*start, "sh FILE"],
        ends=(
            f"the engine after {units.format_hours(deployment.wishes.hours)}; the machine itself bills until whoever "
            "rents it ends it. SOONG_AT_END may hold a command that does. At once: Ctrl-C."
        ),
        reach=f"http://127.0.0.1:{PORT}/v1 on the machine; `ssh -L {PORT}:127.0.0.1:{PORT} MACHINE` leads there.",
    )
