"""`soong reap --install PLACE`: the files on stdout, the steps on stderr."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from soong.cli.output import Output


def show(name: str, *, owner: str | None, cloud: str | None, out: Output) -> int:
    """Print what an always-on place needs; a single file goes to stdout alone, so that it can be redirected."""
    from soong import __version__
    from soong.launch.installing import place
    from soong.lease.owner import owner as own
    from soong.settings import config

    found = place(
        name,
        owner=owner or own(),
        cloud=str(config.value("cloud", flag=cloud)),
        version=__version__,
    )
    alone = len(found.files) == 1
    out.answer(
        data=lambda: {
            "place": found.name,
            "files": [{"name": file, "text": content} for file, content in found.files],
            "steps": found.steps,
        },
        ids=[file for file, _ in found.files],
        human=lambda: "\n".join(
            content if alone else f"# {file}\n{content}" for file, content in found.files
        ).rstrip(),
    )
    out.say(f"\n{found.what}. Then:")
    if alone:
        out.say(f"  save it as {found.files[0][0]}")
    for step in found.steps:
        out.say(f"  {step}")
    out.say(f'and tell soong: soong config set lease.reaper "{found.what.split(";")[0]}"')
    return ExitCode.DONE
