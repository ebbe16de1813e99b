"""The reaper for a place that is always on: what to put there, with the key by reference, never by value."""

from __future__ import annotations

from typing import NamedTuple

from soong.errors import NotFoundError

EVERY_MINUTES = 10
"""Hosted schedulers run at most this often in practice; a machine outlives its lease by at most one round."""


class Place(NamedTuple):
    """One kind of always-on place.

    name: the word on the command line. what: one line. files: (name, text) pairs to put there. steps: what a person
    does, in order.
    """

    name: str
    what: str
    files: tuple[tuple[str, str], ...]
    steps: tuple[str, ...]


def place(name: str, *, owner: str, cloud: str, version: str) -> Place:
    """The files and the steps of one place.

    Args:
        owner: whose machines it may end. cloud: which cloud. version: of soong, to install the same there.

    Raises:
        NotFoundError: no such place; names those there are.
    """
    makers = {
        "systemd": _systemd,
        "cron": _cron,
        "github-actions": _github_actions,
        "kubernetes": _kubernetes,
    }
    if name not in makers:
        from difflib import get_close_matches

        near = get_close_matches(name, makers, n=1)
        hints = (f"did you mean `{near[0]}`?",) if near else ()
        raise NotFoundError(f"there is no place `{name}`", hints=(*hints, "places: " + ", ".join(makers)))
    return makers[name](owner, cloud, version)


def _systemd(owner: str, cloud: str, version: str) -> Place:
    service = f"""\
[Unit]
Description=Ends soong leases of {owner} on {cloud}
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
DynamicUser=yes
StateDirectory=soong
Environment=SOONG_HOME=/var/lib/soong
EnvironmentFile=/etc/soong/reaper.env
ExecStart=/opt/soong/bin/soong reap --cloud {cloud} --owner {owner} --no-input
"""
    timer = f"""\
[Unit]
Description=Ends soong leases of {owner} on {cloud}

[Timer]
OnCalendar=minutely
Persistent=true

[Install]
WantedBy=timers.target
"""
    return Place(
        name="systemd",
        what="a system timer on a machine that stays on",
        files=(
            ("/etc/systemd/system/soong-reaper.service", service),
            ("/etc/systemd/system/soong-reaper.timer", timer),
        ),
        steps=(
            f"python3 -m venv /opt/soong && /opt/soong/bin/pip install soong=={version}",
            "install -m 600 /dev/null /etc/soong/reaper.env   # then write SOONG_LAMBDA_API_KEY=… into it",
            "systemctl daemon-reload && systemctl enable --now soong-reaper.timer",
            "systemctl start soong-reaper.service && journalctl -u soong-reaper -n 20",
        ),
    )


def _cron(owner: str, cloud: str, version: str) -> Place:
    line = (
        f"*/2 * * * * . $HOME/.config/soong/reaper.env && "
        f"$HOME/.local/share/soong/bin/soong reap --cloud {cloud} --owner {owner} --no-input"
        " >> $HOME/.local/state/soong-reaper.log 2>&1\n"
    )
    return Place(
        name="cron",
        what="a line in the crontab of a machine that stays on",
        files=(("crontab -e", line),),
        steps=(
            f"python3 -m venv ~/.local/share/soong && ~/.local/share/soong/bin/pip install soong=={version}",
            "install -m 600 /dev/null ~/.config/soong/reaper.env   # then: export SOONG_LAMBDA_API_KEY=…",
            "crontab -e   # add the line",
        ),
    )


def _github_actions(owner: str, cloud: str, version: str) -> Place:
    workflow = f"""\
name: End soong leases
on:
  schedule:
    - cron: "*/{EVERY_MINUTES} * * * *"
  workflow_dispatch:
permissions: {{}}
concurrency: soong-reaper
jobs:
  reap:
    runs-on: ubuntu-latest
    timeout-minutes: 9
    steps:
      - run: pip install soong=={version}
      - run: soong reap --cloud {cloud} --owner {owner} --no-input
        env:
          SOONG_LAMBDA_API_KEY: ${{{{ secrets.SOONG_LAMBDA_API_KEY }}}}
"""
    return Place(
        name="github-actions",
        what="a scheduled job of a private repository; its schedule may run late by minutes",
        files=((".github/workflows/soong-reaper.yml", workflow),),
        steps=(
            "put the file into a private repository",
            "gh secret set SOONG_LAMBDA_API_KEY",
            "gh workflow run soong-reaper.yml && gh run watch",
        ),
    )


def _kubernetes(owner: str, cloud: str, version: str) -> Place:
    manifest = f"""\
apiVersion: batch/v1
kind: CronJob
metadata:
  name: soong-reaper
spec:
  schedule: "*/2 * * * *"
  concurrencyPolicy: Forbid
  jobTemplate:
    spec:
      activeDeadlineSeconds: 600
      template:
        spec:
          restartPolicy: Never
          containers:
            - name: reaper
              image: python:3.12-slim
              command: ["sh", "-c"]
              args: ["pip install -q soong=={version} && soong reap --cloud {cloud} --owner {owner} --no-input"]
              env:
                - name: SOONG_HOME
                  value: /tmp/soong
                - name: SOONG_LAMBDA_API_KEY
                  valueFrom:
                    secretKeyRef: {{name: soong, key: lambda-api-key}}
"""
    return Place(
        name="kubernetes",
        what="a CronJob of a cluster that stays on",
        files=(("soong-reaper.yaml", manifest),),
        steps=(
            "kubectl create secret generic soong --from-file=lambda-api-key=/path/of/the/key",
            "kubectl apply -f soong-reaper.yaml",
            "kubectl create job --from=cronjob/soong-reaper soong-reaper-test && kubectl logs -f job/soong-reaper-test",
        ),
    )
