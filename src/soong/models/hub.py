"""Read what a Hugging Face repository says of itself: a few small files and the headers of its weights.

Nothing is written and no weights are downloaded: of each safetensors file only the first bytes are asked for,
and reading stops after the header even where a server sends the whole file. Servers are not trusted: answers
have size limits, the whole visit has a time limit, and the token goes to the Hub's own host alone, never to
the file servers that the Hub sends us on to. Addresses: https://huggingface.co/docs/hub/api.
"""

from __future__ import annotations

from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import msgspec

from soong import tracing
from soong.errors import ConfigError, CredentialError, NotFoundError, RemoteError, SoongError, TimedOutError
from soong.models import safetensors
from soong.models.config_json import MOST_BYTES
from soong.models.hub_cache import HubSettings, check_name, check_revision, settings_from_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import httpx2

    from soong.models.safetensors import TensorInfo

    Progress = Callable[[int, int], None]
    """Called with the files read so far and the files there are."""

INDEX_FILE = "model.safetensors.index.json"
FIRST_GUESS_BYTES = 1 << 16
"""Enough for the whole header of most shards, in one question."""

MOST_INDEX_BYTES = 64 << 20
"""The index of a trillion-parameter checkpoint has about a hundred thousand names: 10 MB."""

MOST_SHARDS = 2000
MOST_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MISSING = frozenset({404, 410})


class Limits(NamedTuple):
    """How long to wait and how hard to try. Times in seconds."""

    connect_seconds: float = 5.0
    read_seconds: float = 10.0
    total_seconds: float = 40.0
    attempts: int = 3
    workers: int = 8
    first_wait_seconds: float = 0.2
    longest_wait_seconds: float = 5.0


class Repository(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What a repository says of itself.

    config, hf_quant: the bytes of config.json and hf_quant_config.json (None where there is none).
    tensors: of all safetensors files; None where it has none, or only in another format.
    licence: "" where not known. gated: None where not known. pools: sentence-transformers' modules.json is in it.
    """

    name: str
    revision: str
    config: bytes
    hf_quant: bytes | None = None
    tensors: tuple[TensorInfo, ...] | None = None
    licence: str = ""
    gated: bool | None = None
    pools: bool = False


def read_repository(
    name: str,
    revision: str = "main",
    *,
    settings: HubSettings | None = None,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> Repository:
    """Ask the Hub for a repository's config and the headers of its weights.

    Args:
        name: ORG/NAME.
        revision: a branch, tag or commit.
        settings: where the Hub is and the token; the environment's where none are given.
        limits: of time and attempts.
        progress: told of each file that has been read.

    Raises:
        UsageError: the name or revision is malformed.
        CredentialError: the repository is gated or private, or the token is refused.
        NotFoundError: no such repository, or revision, or it has no config.json.
        RemoteError: the Hub does not answer, or answers nonsense. TimedOutError: not in time.
    """
    check_name(name)
    check_revision(revision)
    settings = settings or settings_from_environment()
    if settings.offline:
        raise RemoteError(
            f"{name} is not on this machine, and HF_HUB_OFFLINE forbids asking Hugging Face",
            hints=("HF_HUB_OFFLINE=0 in front of the same command",),
        )
    limits = limits or Limits(read_seconds=settings.read_seconds)
    visit = _Visit(name, revision, settings, limits)
    try:
        return visit.read(progress)
    finally:
        visit.close()


def check_readable(name: str, revision: str = "main", *, settings: HubSettings | None = None) -> None:
    """Make sure that a repository is there and opens with the person's token, by its config.json alone.

    Args:
        name: ORG/NAME. revision: a branch, tag or commit. settings: the environment's where none are given.

    Raises:
        NotFoundError: no such repository. CredentialError: gated or private, and the token does not open it.
        RemoteError: the Hub does not answer, or may not be asked.
    """
    check_name(name)
    settings = settings or settings_from_environment()
    if settings.offline:
        raise RemoteError("HF_HUB_OFFLINE forbids asking Hugging Face")
    limits = Limits(read_seconds=settings.read_seconds, total_seconds=CHECK_SECONDS)
    visit = _Visit(name, revision, settings, limits)
    try:
        visit.check()
    finally:
        visit.close()


CHECK_SECONDS = 10.0
"""How long a person waits for the answer to a question that has no bearing on the plan."""


class _Again(Exception):  # noqa: N818 - it is no error yet
    """Worth another attempt; `error` is what to say when no attempt is left."""

    def __init__(self, error: SoongError, wait_seconds: float | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.wait_seconds = wait_seconds


class _Answer(NamedTuple):
    status: int
    body: bytes
    whole_bytes: int | None


class _Visit:
    """One reading of one repository: a client, a deadline, and where the token may go."""

    def __init__(self, name: str, revision: str, settings: HubSettings, limits: Limits) -> None:
        import httpx2

        self.name = name
        self.revision = revision
        self.settings = settings
        self.limits = limits
        self.deadline = monotonic() + limits.total_seconds
        self.closed = False
        self._own_origin = _origin(httpx2.URL(settings.endpoint))
        headers = {"User-Agent": "soong", "Accept-Encoding": "identity"}
        timeout = httpx2.Timeout(limits.read_seconds, connect=limits.connect_seconds)
        self._client = httpx2.Client(timeout=timeout, headers=headers)

    def close(self) -> None:
        self.closed = True
        self._client.close()

    # ── what is asked ────────────────────────────────────────────────────────────────────────────

    def read(self, progress: Progress | None) -> Repository:
        config = self._in_time([self._config], None)[0]
        hf_quant, tensors, facts = self._in_time(
            [partial(self._optional, "hf_quant_config.json", MOST_BYTES), self._first_headers, self._facts],
            None,
        )
        if isinstance(tensors, list):
            tasks = [partial(self._header, shard) for shard in tensors]
            tensors = tuple(tensor for shard in self._in_time(tasks, progress) for tensor in shard)
        return Repository(
            name=self.name,
            revision=self.revision,
            config=config,
            hf_quant=hf_quant,
            tensors=tensors,
            licence=facts[0],
            gated=facts[1],
            pools=facts[2],
        )

    def check(self) -> None:
        """Read config.json and keep nothing: refusals come as errors."""
        self._in_time([self._config], None)

    def _config(self) -> bytes:
        answer = self._ask(self._file_url("config.json"), most_bytes=MOST_BYTES)
        if answer.status in _MISSING:
            self._refuse_missing()
        return self._json(answer.body, "config.json")

    def _optional(self, file: str, most_bytes: int) -> bytes | None:
        answer = self._ask(self._file_url(file), most_bytes=most_bytes)
        return None if answer.status in _MISSING else self._json(answer.body, file)

    def _first_headers(self) -> list[str] | tuple[TensorInfo, ...] | None:
        """The shards that the index names, else the tensors of the single file, else None."""
        index = self._optional(INDEX_FILE, MOST_INDEX_BYTES)
        if index is not None:
            try:
                return list(shard_names(index, INDEX_FILE))
            except ConfigError as error:
                raise self._nonsense(str(error)) from None
        return self._header("model.safetensors", required=False)

    def _facts(self) -> tuple[str, bool | None, bool]:
        """Licence, gate, and whether it pools, from the Hub's API; unknown where it does not answer."""
        try:
            url = f"{self.settings.endpoint}/api/models/{self.name}"
            answer = self._ask(url, most_bytes=MOST_INDEX_BYTES, attempts=1)
            facts = msgspec.json.decode(answer.body)
        except (SoongError, msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return "", None, False
        return (*_licence_and_gate(facts), _pools(facts))

    def _header(self, file: str, *, required: bool = True) -> tuple[TensorInfo, ...] | None:
        url = self._file_url(file)
        wanted = FIRST_GUESS_BYTES
        answer = self._ask(url, most_bytes=wanted, first_bytes=wanted)
        if answer.status in _MISSING:
            if not required:
                return None
            raise self._nonsense(f"its index names {file}, which is not there")
        try:
            length = safetensors.LENGTH_BYTES + safetensors.header_length(answer.body, file)
            if length > len(answer.body) and len(answer.body) >= wanted:
                answer = self._ask(url, most_bytes=length, first_bytes=length)
            return safetensors.parse_header(answer.body, file, file_bytes=answer.whole_bytes)
        except ConfigError as error:
            raise self._nonsense(str(error)) from None

    def _file_url(self, file: str) -> str:
        from urllib.parse import quote

        return f"{self.settings.endpoint}/{self.name}/resolve/{quote(self.revision, safe='')}/{quote(file)}"

    def _json(self, body: bytes, file: str) -> bytes:
        """The body, when it is JSON.

        Raises:
            RemoteError: it is a page, or was cut off.
        """
        try:
            msgspec.json.decode(body, type=dict)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            raise self._nonsense(f"{file} is not JSON") from None
        return body

    # ── how it is asked ──────────────────────────────────────────────────────────────────────────

    def _in_time(self, tasks: Sequence[Callable[[], Any]], progress: Progress | None) -> list[Any]:
        """The results of all tasks, in order, some of them at once; the first failure ends the wait.

        The threads are daemons: one that hangs in a name look-up or a trickling answer is left behind.
        """
        from queue import Empty, SimpleQueue
        from threading import Thread

        waiting: SimpleQueue[int] = SimpleQueue()
        done: SimpleQueue[tuple[int, Any, BaseException | None]] = SimpleQueue()
        for number in range(len(tasks)):
            waiting.put(number)
        for _ in range(min(self.limits.workers, len(tasks))):
            Thread(target=self._work, args=(tasks, waiting, done), daemon=True).start()
        results: list[Any] = [None] * len(tasks)
        for count in range(1, len(tasks) + 1):
            try:
                number, results_of_one, error = done.get(timeout=max(0.0, self.deadline - monotonic()))
            except Empty:
                raise self._too_late() from None
            if error is not None:
                raise error
            results[number] = results_of_one
            if progress is not None:
                progress(count, len(tasks))
        return results

    def _work(self, tasks: Sequence[Callable[[], Any]], waiting: Any, done: Any) -> None:
        from queue import Empty

        while not self.closed:
            try:
                number = waiting.get_nowait()
            except Empty:
                return
            try:
                done.put((number, tasks[number](), None))
            except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
                done.put((number, None, error))

    def _ask(
        self, url: str, *, most_bytes: int, first_bytes: int | None = None, attempts: int | None = None
    ) -> _Answer:
        """GET, tried again while that may help. `first_bytes`: only the start of the file is wanted."""
        import logging

        import stamina

        logging.getLogger("stamina").addHandler(logging.NullHandler())  # else each retry prints a line
        left = self.deadline - monotonic()
        if left <= 0:
            raise self._too_late()
        try:
            for attempt in stamina.retry_context(
                on=_wait_before_next,
                attempts=attempts or self.limits.attempts,
                timeout=left,
                wait_initial=self.limits.first_wait_seconds,
                wait_max=self.limits.longest_wait_seconds,
                wait_jitter=self.limits.first_wait_seconds,
            ):
                with attempt:
                    return self._ask_once(url, most_bytes, first_bytes)
        except _Again as last:
            raise last.error from None
        raise self._too_late()

    def _ask_once(self, url: str, most_bytes: int, first_bytes: int | None) -> _Answer:
        import httpx2

        try:
            return self._follow(httpx2.URL(url), most_bytes, first_bytes)
        except httpx2.TimeoutException:
            raise _Again(self._too_late()) from None
        except httpx2.ConnectError:
            raise _Again(self._unreachable()) from None
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as error:
            raise _Again(self._nonsense(f"the connection failed: {type(error).__name__}")) from None

    def _follow(self, url: httpx2.URL, most_bytes: int, first_bytes: int | None) -> _Answer:
        for _ in range(MOST_REDIRECTS + 1):
            headers = {} if first_bytes is None else {"Range": f"bytes=0-{first_bytes - 1}"}
            if self.settings.token and _origin(url) == self._own_origin:
                headers["Authorization"] = f"Bearer {self.settings.token}"
            with (
                tracing.Request("GET", str(url)) as asked,
                self._client.stream("GET", url, headers=headers, follow_redirects=False) as response,
            ):
                asked.answered(response.status_code)
                place = response.headers.get("location")
                if response.status_code not in _REDIRECTS or not place:
                    return self._answer(response, most_bytes, first_bytes)
            url = self._next(url, place)
        raise self._nonsense("it sends us round in circles")

    def _next(self, url: httpx2.URL, place: str) -> httpx2.URL:
        target = url.join(place)
        if target.scheme not in {"http", "https"} or (url.scheme == "https" and target.scheme == "http"):
            raise self._nonsense("it sends us to an address that is not safe")
        return target

    def _answer(self, response: httpx2.Response, most_bytes: int, first_bytes: int | None) -> _Answer:
        status = response.status_code
        if status in _MISSING:
            self._check_gate(response)
            return _Answer(status, b"", None)
        if status in {401, 403}:
            self._refuse_entry(response)
        if status == 429 or status >= 500:
            raise _Again(self._busy(status), _retry_after(response))
        if status == 416:  # the file is shorter than the first byte asked for: empty
            return _Answer(status, b"", 0)
        if status not in {200, 206} or (status == 206 and first_bytes is None):
            raise self._nonsense(f"it answers with status {status}")
        whole = self._whole_bytes(response)
        return _Answer(status, self._body(response, most_bytes, stop_early=first_bytes is not None), whole)

    def _whole_bytes(self, response: httpx2.Response) -> int | None:
        """The size of the file, from Content-Range or Content-Length."""
        if response.status_code == 206:
            span, _, size = response.headers.get("content-range", "").removeprefix("bytes ").partition("/")
            if not span.startswith("0-"):
                raise self._nonsense("it sends another part of the file than was asked for")
        else:
            size = response.headers.get("content-length", "")
        return int(size) if size.isascii() and size.isdigit() and len(size) < 19 else None

    def _body(self, response: httpx2.Response, most_bytes: int, *, stop_early: bool) -> bytes:
        encoding = response.headers.get("content-encoding", "identity").lower()
        if stop_early and encoding not in {"", "identity"}:
            raise self._nonsense("it compresses files that were asked for as they are")
        body = bytearray()
        for chunk in response.iter_bytes():
            body += chunk
            if stop_early and len(body) >= most_bytes:
                return bytes(body[:most_bytes])
            if len(body) > most_bytes:
                raise self._nonsense(f"its answer is longer than {most_bytes:,} bytes")
            if monotonic() > self.deadline or self.closed:
                raise self._too_late()
        return bytes(body)

    # ── what may be wrong ────────────────────────────────────────────────────────────────────────

    @property
    def _page(self) -> str:
        return f"{self.settings.endpoint}/{self.name}"

    def _check_gate(self, response: httpx2.Response) -> None:
        if response.headers.get("x-error-code") == "GatedRepo":
            self._refuse_entry(response)

    def _refuse_entry(self, response: httpx2.Response) -> NoReturn:
        """Say why the Hub keeps the door shut. Source: huggingface_hub `utils/_http.py` hf_raise_for_status."""
        code = response.headers.get("x-error-code", "")
        message = response.headers.get("x-error-message", "")
        if code == "RepoNotFound" or (not self.settings.token and message == "Invalid username or password."):
            raise self._not_found("it does not exist, or is private")
        if self.settings.token and response.status_code == 401 and code != "GatedRepo":
            raise CredentialError(
                f"Hugging Face refused the token when asked for {self.name}",
                why="it is expired, revoked or mistyped, or the model is gated and it may not read it",
                hints=(_HOW_TO_TOKEN, f"accept the licence at {self._page}"),
            )
        why = "this account has not been let in yet" if self.settings.token else "no token was sent"
        raise CredentialError(
            f"{self.name} is gated on Hugging Face",
            why=why,
            hints=(f"accept the licence at {self._page}", _HOW_TO_TOKEN),
        )

    def _refuse_missing(self) -> NoReturn:
        """config.json is not there: is it the repository, the revision or only the file?"""
        answer = self._probe()
        if answer:
            raise NotFoundError(
                f"{self.name} has no config.json on Hugging Face",
                why="it may hold GGUF files, adapters or another format",
                hints=(f"visit {self._page}/tree/main to see its files",),
            )
        raise self._not_found("")

    def _probe(self) -> bool:
        """Whether the Hub's API knows the repository."""
        try:
            url = f"{self.settings.endpoint}/api/models/{self.name}"
            facts = msgspec.json.decode(self._ask(url, most_bytes=MOST_INDEX_BYTES, attempts=1).body)
        except (SoongError, msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return False
        return isinstance(facts, dict) and bool({"id", "modelId"} & facts.keys()) and self.revision == "main"

    def _not_found(self, why: str) -> NotFoundError:
        revision = "" if self.revision == "main" else f" at revision {self.revision}"
        return NotFoundError(
            f"{self.name}{revision} not found on Hugging Face",
            why=why,
            hints=(
                f"check the spelling: visit {self._page}",
                "`soong models` lists the models that soong knows",
            ),
        )

    def _nonsense(self, why: str) -> RemoteError:
        return RemoteError(
            f"Hugging Face gave an answer for {self.name} that cannot be used",
            why=why,
            hints=(f"visit {self._page}",),
        )

    def _busy(self, status: int) -> RemoteError:
        why = "it asks us to slow down" if status == 429 else f"it answers with status {status}"
        return RemoteError(f"Hugging Face cannot serve {self.name} now", why=why, hints=_LATER)

    def _unreachable(self) -> RemoteError:
        host = self._own_origin[1]
        return RemoteError(f"cannot reach Hugging Face at {host} to read {self.name}", hints=_LATER)

    def _too_late(self) -> TimedOutError:
        return TimedOutError(f"Hugging Face did not answer in time when asked for {self.name}", hints=_LATER)


_HOW_TO_TOKEN = "export HF_TOKEN=hf_... with a token from https://huggingface.co/settings/tokens"  # noqa: S105 - words
_LATER = ("try again later", "`soong models` lists models that need no network")


def shard_names(index: bytes, name: str) -> tuple[str, ...]:
    """The files that a model.safetensors.index.json names, each once, in order.

    Raises:
        ConfigError: it is not such an index, or names a file outside the repository.
    """
    try:
        document = msgspec.json.decode(index, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise ConfigError(f"{name} is not valid JSON") from None
    places = document.get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ConfigError(f"{name} has no weight_map")
    files = set(places.values()) if all(isinstance(file, str) for file in places.values()) else {""}
    for file in files:
        if not _is_plain_file(file):
            raise ConfigError(f"{name} names a file outside its repository")
    if len(files) > MOST_SHARDS:
        raise ConfigError(f"{name} names {len(files):,} files, which no real model has")
    return tuple(sorted(files))


def _is_plain_file(file: str) -> bool:
    parts = file.split("/")
    sound = bool(file) and len(file) <= 300 and file.isprintable() and not set(file) & set("\\?#%:")
    return sound and file.endswith(".safetensors") and not any(part in {"", ".", ".."} for part in parts)


def _licence_and_gate(facts: object) -> tuple[str, bool | None]:
    if not isinstance(facts, dict):
        return "", None
    card = facts.get("cardData")
    licence = card.get("license") if isinstance(card, dict) else None
    if licence == "other" and isinstance(card, dict):
        licence = card.get("license_name") or licence
    gate = facts.get("gated")
    return (licence[:100] if isinstance(licence, str) else "", None if gate is None else bool(gate))


def _pools(facts: object) -> bool:
    """Whether sentence-transformers' own file is among the repository's, by which vLLM tells an embedder."""
    files = facts.get("siblings") if isinstance(facts, dict) else None
    names = (
        (file.get("rfilename") for file in files if isinstance(file, dict)) if isinstance(files, list) else ()
    )
    return "modules.json" in names


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    port = url.port or {"http": 80, "https": 443}.get(url.scheme)
    return url.scheme, url.host, port


def _wait_before_next(error: Exception) -> bool | float:
    """What stamina asks: try again? True: after its own wait. A number: after so many seconds."""
    if not isinstance(error, _Again):
        return False
    return True if error.wait_seconds is None else error.wait_seconds


def _retry_after(response: httpx2.Response) -> float | None:
    """The wait the server asks for, at most 30 seconds; None where it asks for none."""
    text = response.headers.get("retry-after", "")
    return min(float(text), 30.0) if text.isascii() and text.isdigit() and len(text) < 6 else None
