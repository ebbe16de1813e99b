"""YAML that people read: keys in the order that they were thought of, scripts as blocks."""

from __future__ import annotations

from typing import Any

import yaml

WIDTH = 110


class _Dumper(yaml.SafeDumper):
    """Indents the items of lists, and never writes anchors."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002 - yaml's signature
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - yaml's signature
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _nothing(dumper: yaml.SafeDumper, _: None) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:null", "null")


_Dumper.add_representer(str, _text)
_Dumper.add_representer(type(None), _nothing)


def dumped(*documents: dict[str, Any]) -> str:
    """The documents as one YAML stream."""
    return yaml.dump_all(
        documents,
        Dumper=_Dumper,
        sort_keys=False,
        width=WIDTH,
        allow_unicode=True,
        explicit_start=len(documents) > 1,
    )


def seconds(count: int) -> str:
    """A span as tools read it: `14400s`."""
    return f"{count}s"


def disk_gib(size_bytes: int) -> int:
    """A disk that holds so much, in steps of 50 GiB.

    >>> disk_gib(1)
    50
    """
    return -(-size_bytes // (DISK_STEP_GIB * 2**30)) * DISK_STEP_GIB


DISK_STEP_GIB = 50
