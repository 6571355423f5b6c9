"""A password that a function says: what it may return, and what is said of it, which is never the secret."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from nearcache.errors import AuthenticationFailedError, ShardError, ShardUnavailableError
from nearcache.l2.handshake import _steps
from nearcache.l2.logins import logged_in
from nearcache.options import Endpoint

SECRET = "c6f1b09e"


class Provider:
    """As redis-py's, but that its repr() says what it should not."""

    def __init__(self, *said: str) -> None:
        self.said = said

    def __repr__(self) -> str:
        return f"Provider{self.said}"

    def get_credentials(self) -> tuple[str, ...]:
        """What redis-py asks for."""
        return self.said


def login(password: Any, *, now: Callable[[], int] = lambda: 0, deadline_ns: int = 1) -> Endpoint:
    """The endpoint that a connection is made with."""
    return logged_in(Endpoint("a", username="app", password=password), deadline_ns, now)


def refusal(password: Any, **options: Any) -> ShardError:
    """Why there is none. No word of it is secret, but for what the function itself has raised."""
    with pytest.raises(ShardError) as caught:
        login(password, **options)
    error = caught.value
    assert SECRET not in "".join(traceback.format_exception(type(error), error, None, chain=False)) + repr(vars(error))
    return error


@pytest.mark.parametrize("password", [None, "", SECRET])
def test_password_that_is_a_text_is_that(password: str | None) -> None:
    """Or none, or an empty one."""
    assert login(password) == Endpoint("a", username="app", password=password)


@pytest.mark.parametrize(
    ("ask", "user"),
    [
        (lambda: SECRET, "app"),
        (Provider(SECRET).get_credentials, "app"),
        (Provider("other", SECRET).get_credentials, "other"),
        (functools.partial(str, SECRET), "app"),
        (lambda: ["other", SECRET], "other"),
    ],
)
def test_function_says_password_or_user_and_password(ask: Callable[[], Any], user: str) -> None:
    """As redis-py's providers do, in a tuple of one or two."""
    found = login(ask)
    assert (found.username, found.password) == (user, SECRET)
    assert SECRET not in repr(found)


def test_function_is_asked_for_each_connection() -> None:
    """What it says may end."""
    tokens = iter(["first", "second"])
    ask = functools.partial(next, tokens)
    assert [login(ask).password, login(ask).password] == ["first", "second"]


def test_function_that_raises_is_named_with_what_it_raised() -> None:
    """Whoever cannot reach the service of tokens may try again; what it said may quote a token."""

    def token() -> str:
        raise OSError(f"GET /?token={SECRET}")

    error = refusal(token)
    assert isinstance(error, ShardUnavailableError)
    assert "token, raised OSError" in str(error)
    assert isinstance(error.__cause__, OSError)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (None, "NoneType"),
        (SECRET.encode(), "bytes"),
        ((), "tuple"),
        (("u", SECRET, ""), "tuple"),
        ((1, SECRET), "tuple"),
    ],
)
def test_function_that_returns_something_else_is_named(said: Any, kind: str) -> None:
    """No try will be better."""
    error = refusal(lambda: said)
    assert isinstance(error, AuthenticationFailedError)
    assert f"returned {kind}:" in str(error)


def test_function_that_returns_a_coroutine_is_named_and_nothing_stays_unawaited() -> None:
    """One that is marked as such is refused at the door; of others it turns out here."""

    async def token() -> str:
        return SECRET

    error = refusal(lambda: token())
    assert isinstance(error, AuthenticationFailedError)
    assert "returned coroutine:" in str(error)


def test_function_that_takes_all_the_time_is_named() -> None:
    """The server has nothing to do with it."""
    clock = iter([0, 2_500_000_000, 2_500_000_000])
    error = refusal(lambda: SECRET, now=lambda: next(clock), deadline_ns=1_000_000_000)
    assert isinstance(error, ShardUnavailableError)
    assert "took 2.5 s" in str(error)
    assert "connect_timeout" in str(error)


@pytest.mark.parametrize(
    ("given", "hello"),
    [
        ({}, ()),
        ({"password": SECRET}, ("AUTH", "default", SECRET)),
        ({"username": "app"}, ("AUTH", "app", "")),
        ({"username": "app", "password": SECRET}, ("AUTH", "app", SECRET)),
    ],
)
def test_listener_says_who_it_is_only_if_it_was_told(given: dict[str, str], hello: tuple[str, ...]) -> None:
    """Proxies and servers without users refuse to be told of one."""
    assert _steps(Endpoint("a", **given), resp3=True)["hello"] == ("HELLO", 3, *hello)
    assert ("auth" in _steps(Endpoint("a", **given), resp3=False)) is bool(hello)
