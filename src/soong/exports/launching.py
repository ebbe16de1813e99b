"""The script that starts the engine, for a POSIX shell: the key is checked first, and no key means no engine.

The key never stands in a command line, where every user of a machine could read it: vLLM and llama.cpp take it from the
environment, SGLang from a file that only its owner may read.
"""

from __future__ import annotations

import shlex
from importlib import resources
from typing import TYPE_CHECKING

from soong.exports.header import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soong.exports.deployment import Deployment

KEY = "SOONG_API_KEY"
"""The environment variable of the key that clients must send."""
TOKEN = "HF_TOKEN"  # noqa: S105 - a variable's name
"""The one that every engine reads the Hub's token from."""

CHECK_KEY = """\
: "${SOONG_API_KEY:?is the key that clients must send; without one nothing is served}"
case "$SOONG_API_KEY" in
  -* | *[!A-Za-z0-9._~+/=-]*) echo "SOONG_API_KEY: only letters, digits and . _ ~ + / = - (not first)" >&2; exit 64 ;;
esac
"""
"""The letters are those of a bearer token, RFC 6750."""

RENDEZVOUS_PORT = 29501
"""Where the machines of one replica meet: vLLM 0.33's own default for `--master-port`."""


def script(
    deployment: Deployment,
    *,
    program: Sequence[str] = (),
    rank: str = "",
    leader: str = "",
    run: str = "exec",
) -> str:
    """The lines that start the engine.

    Args:
        deployment: what runs.
        program: in place of the command's first word.
        rank, leader: shell words for the number and the first machine's address, where there are several machines.
        run: what stands before the command: `exec`, or a `timeout`.
    """
    lines = [CHECK_KEY, _check_token(deployment), _key_to(deployment.engine)]
    lines += [f"export {name}={shlex.quote(value)}\n" for name, value in deployment.env.items()]
    if deployment.nodes > 1:
        lines.append(f"rank={rank}\nleader={leader}\n")
    argv = (*(program or deployment.argv[:1]), *deployment.argv[1:])
    lines.append("set -- " + folded(argv) + _key_flags(deployment.engine) + "\n")
    if deployment.nodes > 1:
        lines.append(_nodes(deployment))
    return "".join(lines) + f'{run} "$@"\n'


def folded(argv: Sequence[str]) -> str:
    r"""A command over several lines, an option with its value on each.

    >>> print(folded(["vllm", "serve", "a/b", "--port", "8000"]))
    vllm serve a/b \
      --port 8000
    """
    rows: list[list[str]] = [[]]
    for word in argv:
        if word.startswith("--") and len(word) > 2:
            rows.append([])
        rows[-1].append(shlex.quote(printable(word)))
    return " \\\n  ".join(" ".join(row) for row in rows if row)


def token_note(deployment: Deployment) -> tuple[str, ...]:
    """For tools that insist on every secret that is named: what to do where it is not known whether one is needed."""
    if deployment.consent != "unknown":
        return ()
    return (f"whether {deployment.source} asks for a token is not known; if so, name {TOKEN} beside {KEY}.",)


def secrets_of(deployment: Deployment) -> list[str]:
    """The environment variables without which it does not start, by name."""
    return [KEY, TOKEN] if deployment.consent == "required" else [KEY]


def _check_token(deployment: Deployment) -> str:
    if deployment.consent != "required":
        return ""
    page = f"https://huggingface.co/{deployment.source.partition('@')[0].partition(':')[0]}"
    return f': "${{HF_TOKEN:?is needed: accept the terms of {page}, then make a token there}}"\n'


def _key_to(engine: str) -> str:
    """Hand the key to the engine.

    Source: vLLM 0.33 `envs.py` VLLM_API_KEY, `entrypoints/common/cli_args.py` --middleware; SGLang 0.5.23
    `srt/utils/server_args_config_parser.py` --config; llama.cpp b10662 `common/arg.cpp` LLAMA_API_KEY.
    """
    if engine == "llama.cpp":
        return f'export LLAMA_API_KEY="${KEY}"\n'
    if engine == "sglang":
        return f'umask 077\nsettings="$(mktemp -d)"\nprintf \'api-key: "%s"\\n\' "${KEY}" > "$settings/key.yaml"\n'
    guard = resources.files("soong.exports").joinpath("key_guard.py").read_text(encoding="utf-8")
    return (
        f'export VLLM_API_KEY="${KEY}"\nguard="$(mktemp -d)"\n'
        f"cat > \"$guard/key_guard.py\" << 'PYTHON'\n{guard}PYTHON\n"
        'export PYTHONPATH="$guard${PYTHONPATH:+:$PYTHONPATH}"\n'
    )


def _key_flags(engine: str) -> str:
    flags = {"sglang": '--config "$settings/key.yaml"', "vllm": "--middleware key_guard.KeyGuard"}.get(engine)
    return f" \\\n  {flags}" if flags else ""


def _nodes(deployment: Deployment) -> str:
    """The engine's own launch over several machines.

    Source: SGLang 0.5.23 `srt/arg_groups/fields/parallel.py`; vLLM 0.33 `config/parallel.py` (multiprocessing is its
    back end where `--nnodes` is given) and `entrypoints/cli/serve.py` --headless.
    """
    if deployment.engine == "sglang":
        return (
            f'set -- "$@" --nnodes {deployment.nodes} --node-rank "$rank" '
            f'--dist-init-addr "$leader:{RENDEZVOUS_PORT}"\n'
        )
    return (
        f'set -- "$@" --nnodes {deployment.nodes} --node-rank "$rank" \\\n'
        f'  --master-addr "$leader" --master-port {RENDEZVOUS_PORT}\n'
        'if [ "$rank" -gt 0 ]; then set -- "$@" --headless; fi\n'
    )
