"""Lambda's API, call by call: thin, typed, polite, and silent about the key.

A question that changes nothing, or changes the same thing however often it is asked, is asked again when the
network or Lambda stumbles. A launch is sent once, whatever happens: only the codes of `refusals.NOTHING_LAUNCHED`
prove that it made nothing. The key goes to one address, in one header, and is cut out of every text that comes back.
Source: Lambda Cloud API 1.10.0.
"""

from __future__ import annotations

import re
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import msgspec

from soong import tracing
from soong.clouds.lambda_cloud import refusals, wire
from soong.clouds.lambda_cloud.pacing import Pace
from soong.clouds.lambda_cloud.service import LAMBDA, Service
from soong.errors import ConfigError, RemoteError, SoongError, TimedOutError
from soong.lease.clock import WallClock

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx2

    from soong.lease.clock import Clock
    from soong.settings.secrets import Secret

Answer = TypeVar("Answer")
Scheme = Literal["bearer", "basic"]

API_URL = "https://cloud.lambda.ai"
API_PATH = "/api/v1"

MOST_ANSWER_BYTES = 16 << 20
"""A thousand instances take about two megabytes."""

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_SAFE_ID = re.compile(r"[A-Za-z0-9._:-]{1,200}")


class Limits(NamedTuple):
    """How long to wait, in real seconds, and how hard to try; the waits between tries follow the provider's clock."""

    connect_seconds: float = 10.0
    read_seconds: float = 30.0
    launch_seconds: float = 120.0
    attempts: int = 4
    first_wait_seconds: float = 1.0
    longest_wait_seconds: float = 30.0
    most_retry_after_seconds: float = 60.0


class _Reply(NamedTuple):
    status: int
    body: bytes
    kind: str
    retry_after_seconds: float | None


class _Stumbled(Exception):  # noqa: N818 - it is no error yet
    """A try that failed, and may be repeated when `is_passing`; `error` is what to say when no try is left."""

    def __init__(self, error: SoongError, *, is_passing: bool, wait_seconds: float | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.is_passing = is_passing
        self.wait_seconds = wait_seconds


class LambdaClient:
    """One account at Lambda, or at whatever speaks Lambda's API.

    Args:
        key: the API key. url: of the service, without `/api/v1`. clock: by which to wait between questions.
        scheme: `bearer`, or `basic` (the key as user, no password); Lambda documents both.
        service: what messages call it.
        pace: shared between the processes of this account when not given. limits: of time and tries.

    Raises:
        ConfigError: the address is none, or would carry the key in clear text over a network.
    """

    def __init__(
        self,
        key: Secret,
        *,
        url: str = API_URL,
        clock: Clock | None = None,
        scheme: Scheme = "bearer",
        service: Service = LAMBDA,
        pace: Pace | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.url = checked_url(url)
        self.clock: Clock = clock or WallClock()
        self.account = key.fingerprint
        self.service = service
        self._later = service.later_hints
        self.clock_skew_seconds: float | None = None
        """How far Lambda's clock is ahead of ours, from its last answer; None before, or when it did not say."""
        self._key = key
        self._scheme = scheme
        self._limits = limits or Limits()
        self._pace = pace or Pace(key.fingerprint, self.clock)
        self._http: httpx2.Client | None = None

    def __repr__(self) -> str:
        return f"LambdaClient({self.url}, account {self.account})"

    def close(self) -> None:
        """Let the connection go; the next call opens another."""
        if self._http is not None:
            self._http.close()
            self._http = None

    # ── the calls ────────────────────────────────────────────────────────────────────────────────

    def instances(self) -> list[wire.Instance]:
        """Every machine of the account."""
        return self._ask("to list the instances", "GET", "/instances", list[wire.Instance])

    def instance(self, instance_id: str) -> wire.Instance:
        """One machine.

        Raises:
            NotFoundError: Lambda knows none of that id.
        """
        return self._ask("to show an instance", "GET", f"/instances/{_safe(instance_id)}", wire.Instance)

    def rename(self, instance_id: str, name: str) -> None:
        """Give a machine another name: the one thing of it that can change."""
        path = f"/instances/{_safe(instance_id)}"
        self._ask("to rename an instance", "POST", path, wire.Nothing, body={"name": name})

    def terminate(self, instance_ids: list[str]) -> wire.Terminated:
        """Ask for the end of machines; safe to repeat, and no proof."""
        path = "/instance-operations/terminate"
        body = {"instance_ids": instance_ids}
        return self._ask("to terminate an instance", "POST", path, wire.Terminated, body=body)

    def instance_types(self) -> dict[str, wire.InstanceTypeItem]:
        """Every kind of machine with its price and the regions where one is free.

        A kind that cannot be read is left out; a list in which none can be read is an error, since an empty list
        looks like "no capacity" and is not.

        Raises:
            RemoteError: the list is empty or unreadable.
        """
        what = "for its instance types"
        raw = self._ask(what, "GET", "/instance-types", dict[str, msgspec.Raw])
        types = {name: item for name, text in raw.items() if (item := _type_item(text)) is not None}
        if not types:
            why = "empty price list" if not raw else "none of its instance types can be read"
            raise RemoteError(
                f"{self.service.name} answered without a single instance type",
                why=why,
                hints=self._later,
            )
        return types

    def launch(self, body: Mapping[str, Any]) -> str:
        """Ask for one machine, once.

        A new connection is opened for it: one kept open may just be closing, and nobody would know whether the
        request was read.

        Args:
            body: the request as the API has it.

        Returns:
            The id of the machine.

        Raises:
            LaunchRefusedError: certainly nothing was launched. LaunchUnclearError: anything else.
        """
        self.close()
        self._opened()
        self._pace.wait_for_launch()
        path = "/instance-operations/launch"
        try:
            reply = self._send("POST", path, body, read_seconds=self._limits.launch_seconds)
        except _Stumbled as stumble:
            raise refusals.unclear(self.service, str(stumble.error)) from None
        if reply.retry_after_seconds:
            self._pace.hold(min(reply.retry_after_seconds, self._limits.most_retry_after_seconds))
        if not 200 <= reply.status < 300:
            raise refusals.launch_error(self.service, reply.status, self._refusal(reply))
        try:
            ids = self._data("to launch", reply, wire.Launched).instance_ids
        except RemoteError as error:
            raise refusals.unclear(self.service, str(error)) from None
        if len(ids) != 1 or not _SAFE_ID.fullmatch(ids[0]):
            raise refusals.unclear(self.service, f"it names {len(ids)} machines where one was asked for")
        return ids[0]

    def ssh_keys(self) -> list[wire.SshKey]:
        """The public keys of the account."""
        return self._ask("to list the SSH keys", "GET", "/ssh-keys", list[wire.SshKey])

    def add_ssh_key(self, name: str, public_key: str) -> wire.SshKey:
        """Put a public key into the account. Not repeated: Lambda would keep two of one name."""
        body = {"name": name, "public_key": public_key}
        return self._ask("to add an SSH key", "POST", "/ssh-keys", wire.SshKey, body=body, attempts=1)

    def delete_ssh_key(self, key_id: str) -> None:
        """Take a public key out of the account.

        Raises:
            NotFoundError: there is none of that id.
        """
        self._ask("to delete an SSH key", "DELETE", f"/ssh-keys/{_safe(key_id)}", wire.Nothing)

    def filesystems(self) -> list[wire.Filesystem]:
        """The storage of the account."""
        return self._ask("to list the filesystems", "GET", "/file-systems", list[wire.Filesystem])

    def images(self) -> list[wire.Image]:
        """What machines can start from."""
        return self._ask("to list the images", "GET", "/images", list[wire.Image])

    def regions(self) -> list[wire.Region]:
        """Where machines can stand."""
        return self._ask("to list the regions", "GET", "/regions", list[wire.Region])

    # ── how a question is asked ──────────────────────────────────────────────────────────────────

    def _ask(
        self,
        what: str,
        method: str,
        path: str,
        answer: type[Answer],
        *,
        body: Mapping[str, Any] | None = None,
        attempts: int | None = None,
    ) -> Answer:
        """Ask, again where that may help, and read the answer."""
        left = attempts or self._limits.attempts
        wait = self._limits.first_wait_seconds
        while True:
            left -= 1
            self._opened()  # before the wait: loading takes time, and the moment is for the request
            self._pace.wait_for_request()
            try:
                return self._data(what, self._happy(what, self._send(method, path, body)), answer)
            except _Stumbled as stumble:
                if not stumble.is_passing or left <= 0:
                    raise stumble.error from None
                self._wait_before_next(stumble, wait)
            wait = min(2 * wait, self._limits.longest_wait_seconds)

    def _wait_before_next(self, stumble: _Stumbled, own_wait_seconds: float) -> None:
        """Wait as long as Lambda asks for, within reason, or for our own growing time with some jitter."""
        asked = stumble.wait_seconds
        if asked is None:
            from random import uniform

            self.clock.sleep(own_wait_seconds * uniform(0.75, 1.25))  # noqa: S311 - spreads tries, hides nothing
            return
        if asked > self._limits.most_retry_after_seconds:
            raise RemoteError(
                f"{self.service.name} asks for {asked:,.0f} s of silence before the next question",
                why=str(stumble.error),
                hints=(f"try again in {_in_words(asked)}",),
            ) from None
        self._pace.hold(asked)
        self.clock.sleep(asked)

    def _send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        *,
        read_seconds: float | None = None,
    ) -> _Reply:
        """One request, one reply; `_Stumbled` when none came."""
        import httpx2

        seconds = read_seconds or self._limits.read_seconds
        content = None if body is None else msgspec.json.encode(body)
        timeout = httpx2.Timeout(seconds, connect=self._limits.connect_seconds)
        headers, url = self._headers(body), f"{self.url}{API_PATH}{path}"
        try:
            with (
                tracing.Request(method, url) as asked,
                self._opened().stream(
                    method, url, content=content, headers=headers, timeout=timeout
                ) as response,
            ):
                asked.answered(response.status_code)
                return self._read(response, monotonic() + seconds)
        except httpx2.TimeoutException:
            raise _Stumbled(self._too_late(), is_passing=True) from None
        except httpx2.ConnectError as error:
            raise _Stumbled(self._unreachable(error), is_passing=True) from None
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            raise _Stumbled(self._cut_off(error), is_passing=True) from None

    def _opened(self) -> httpx2.Client:
        if self._http is None:
            import weakref

            import httpx2

            # Plain http stays on this computer (`checked_url`): no proxy belongs in between, and there is no
            # certificate whose store would be worth the 30 ms of loading.
            is_remote = self.url.startswith("https:")
            self._http = httpx2.Client(follow_redirects=False, trust_env=is_remote, verify=is_remote)
            weakref.finalize(self, self._http.close)
        return self._http

    def _headers(self, body: Mapping[str, Any] | None) -> dict[str, str]:
        from soong import __version__

        headers = {"Accept": "application/json", "User-Agent": f"soong/{__version__}"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self._scheme == "basic":
            from base64 import b64encode

            headers["Authorization"] = "Basic " + b64encode(f"{self._key.reveal()}:".encode()).decode()
        else:
            headers["Authorization"] = f"Bearer {self._key.reveal()}"
        return headers

    def _read(self, response: httpx2.Response, deadline: float) -> _Reply:
        """The reply, read to its end within limits of size and time."""
        body = bytearray()
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > MOST_ANSWER_BYTES:
                raise _Stumbled(self._nonsense("its answer does not end"), is_passing=False)
            if monotonic() > deadline:
                raise _Stumbled(self._too_late(), is_passing=True)
        self._notice_clock(response.headers.get("date", ""))
        kind = response.headers.get("content-type", "").partition(";")[0].strip()[:60]
        return _Reply(response.status_code, bytes(body), kind, self._retry_after(response.headers))

    # ── what came back ───────────────────────────────────────────────────────────────────────────

    def _happy(self, what: str, reply: _Reply) -> _Reply:
        """The reply, when Lambda did what it was asked."""
        if 200 <= reply.status < 300:
            return reply
        if 300 <= reply.status < 400:
            why = f"status {reply.status}: it sends us to another address, where the key must not go"
            raise _Stumbled(self._nonsense(why), is_passing=False)
        refusal = self._refusal(reply)
        error = refusals.ordinary_error(self.service, what, reply.status, refusal)
        is_passing = refusals.is_passing(reply.status, refusal.code)
        if is_passing:
            why = refusals.words_of(reply.status, refusal)
            error = RemoteError(f"{self.service.name} cannot be asked {what} now", why=why, hints=self._later)
        raise _Stumbled(error, is_passing=is_passing, wait_seconds=reply.retry_after_seconds)

    def _refusal(self, reply: _Reply) -> wire.Refusal:
        """What the reply says, without the key, should a gateway have echoed it."""
        refusal = wire.read_refusal(reply.body)
        return wire.Refusal(*(self._hidden(text) for text in msgspec.structs.astuple(refusal)))

    def _hidden(self, text: str) -> str:
        return text.replace(self._key.reveal(), "••••")

    def _data(self, what: str, reply: _Reply, answer: type[Answer]) -> Answer:
        """The `data` of an answer.

        Raises:
            RemoteError: it is no JSON, has no `data`, or that is something else than was asked for.
        """
        try:
            envelope = msgspec.json.decode(reply.body, type=dict[str, msgspec.Raw])
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            why = f"it is {reply.kind or 'of no kind'}, {len(reply.body):,} bytes, where JSON was asked for"
            hints = (
                "does this network ask for a login first? open any page in a browser",
                *self._later,
            )
            raise self._nonsense(why, hints) from None
        if "data" not in envelope:
            raise self._nonsense("it has no `data`")
        return self._decoded(what, bytes(envelope["data"]), answer)

    def _decoded(self, what: str, text: bytes, answer: type[Answer]) -> Answer:
        try:
            return msgspec.json.decode(text, type=answer)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            why = error if isinstance(error, msgspec.ValidationError) else "it is no JSON"
            raise self._nonsense(self._hidden(f"asked {what}: {why}")) from None

    def _notice_clock(self, date: str) -> None:
        seconds = _http_date(date)
        if seconds is not None:
            self.clock_skew_seconds = seconds - self.clock.now()

    def _retry_after(self, headers: httpx2.Headers) -> float | None:
        """The seconds of silence that the reply asks for; None where it asks for none that can be read."""
        text = headers.get("retry-after", "").strip()
        if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", text):
            return float(text)
        moment = _http_date(text)
        if moment is None:
            return None
        server_now = _http_date(headers.get("date", ""))  # the server's own: clocks differ
        return max(0.0, moment - (self.clock.now() if server_now is None else server_now))

    # ── what may be wrong ────────────────────────────────────────────────────────────────────────

    def _too_late(self) -> TimedOutError:
        return TimedOutError(f"{self.service.name} did not answer in time at {self.url}", hints=self._later)

    def _unreachable(self, error: Exception) -> RemoteError:
        why = self._hidden(str(error))
        return RemoteError(
            f"cannot reach {self.service.name} at {self.url}",
            why=why,
            hints=("is the network up?", *self._later),
        )

    def _cut_off(self, error: Exception) -> RemoteError:
        return RemoteError(f"the connection to {self.url} broke", why=type(error).__name__, hints=self._later)

    def _nonsense(self, why: str, hints: tuple[str, ...] = ()) -> RemoteError:
        return RemoteError(
            f"{self.url} gave an answer that cannot be used", why=why, hints=hints or self._later
        )


def checked_url(url: str) -> str:
    """The address of a service, without a slash or `/api/v1` at its end.

    Raises:
        ConfigError: it is no address, carries a name and password, or is not encrypted and leaves this computer.
    """
    from urllib.parse import urlsplit

    plain = url.strip().rstrip("/").removesuffix(API_PATH)
    try:
        parts = urlsplit(plain)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if (
        not host
        or parts.scheme not in {"http", "https"}
        or parts.query
        or parts.fragment
        or not _is_plain(plain)
    ):
        raise _bad_url("it is no address like https://cloud.lambda.ai")
    if parts.username is not None or parts.password is not None:
        raise _bad_url("an address must not carry a name or a key")
    if parts.scheme == "http" and host not in _LOOPBACK:
        raise _bad_url(f"the key would travel to {host} unencrypted: use https")
    return plain


def _is_plain(url: str) -> bool:
    return url.isascii() and url.isprintable() and " " not in url


def _bad_url(why: str) -> ConfigError:
    return ConfigError(
        "the address of Lambda's API cannot be used",
        why=why,
        hints=("unset SOONG_LAMBDA_API_URL", "soong config unset lambda.api_url"),
    )


def _safe(word: str) -> str:
    """An id as part of a path.

    Raises:
        RemoteError: it is none: it would lead to another path.
    """
    if not _SAFE_ID.fullmatch(word) or word in {".", ".."}:
        raise RemoteError(f"`{word[:60]}` is no id that Lambda gives")
    return word


def _type_item(text: msgspec.Raw) -> wire.InstanceTypeItem | None:
    try:
        return msgspec.json.decode(text, type=wire.InstanceTypeItem)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None


def _http_date(text: str) -> float | None:
    """Seconds since 1970 of a date in an HTTP header; None when it is none."""
    if not text:
        return None
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _in_words(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:,.0f} minutes"
