"""The endpoint as its clients see it: OpenAI's own on loopback, and raw requests that are wrong."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import Any

import httpx2
import openai
import pytest
from pydantic import BaseModel

from graftlab.generation.loop import decode
from graftlab.generation.sampling import Generation
from graftlab.serving import app as app_module
from graftlab.serving import engine as engine_module
from graftlab.serving.app import Service
from graftlab.serving.engine import Engine
from graftlab.serving.server import LOOPBACK_NAMES, Server, listen, url_of
from graftlab.types import Message
from served import SYSTEM, Shop

KEY = "a key that nobody can guess"
QUESTION = "Which year was the record made?"
GREEDY = {"temperature": 0, "max_tokens": 12}


@contextmanager
def running(shop: Shop, **how: Any) -> Iterator[str]:
    """The URL of an endpoint; it is stopped at the end of the block."""
    engine = Engine(shop.base, nullcontext, batch=4)
    service = Service(engine, shop.models, Generation(max_new_tokens=12), **how)
    server = Server(service)
    with listen("127.0.0.1", 0) as bound:
        url = url_of(bound)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        engine.start()
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield url
        finally:
            server.should_exit = True
            thread.join(60)
            assert not thread.is_alive()


@pytest.fixture
def url(shop: Shop) -> Iterator[str]:
    with running(shop, hosts=LOOPBACK_NAMES) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every turn that was decoded."""
    seen: list[Any] = []

    def noting(base: Any, first: Any, *, more: Any, **rest: Any) -> None:
        def joining(room: int) -> Any:
            found = more(room)
            seen.extend(found)
            return found

        seen.extend(first)
        decode(base, first, more=joining, **rest)

    monkeypatch.setattr(engine_module, "decode", noting)
    return seen


def asking(text: str = QUESTION) -> list[Any]:
    return [{"role": "user", "content": text}]


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["base", "one", "two"]
    assert client.models.retrieve("two").object == "model"
    with pytest.raises(openai.NotFoundError, match="Did you mean `two`"):
        client.models.retrieve("tw")


def test_every_model_answers_by_its_name(client: openai.OpenAI, shop: Shop) -> None:
    expected = {
        name: shop.expected(
            name, *([("system", SYSTEM)] if name == "one" else []), ("user", QUESTION),
            max_new_tokens=12,
        )
        for name in shop.models
    }  # fmt: skip
    assert len(set(expected.values())) == 3
    for _ in range(2):  # back to one that was swapped away
        for name, text in expected.items():
            done = client.chat.completions.create(model=name, messages=asking(), **GREEDY)
            assert done.choices[0].message.content == text
            assert done.choices[0].finish_reason == "length"
            assert done.model == name
            assert done.usage is not None
            system = [Message("system", SYSTEM)] if name == "one" else []
            messages = [*system, Message("user", QUESTION)]
            prompt = shop.models[name].tokenizer.render(messages, generation_prompt=True)
            assert done.usage.prompt_tokens == len(prompt)
            assert done.usage.completion_tokens == 12
            assert done.usage.total_tokens == len(prompt) + 12


def test_a_stream_is_the_same_reply(client: openai.OpenAI) -> None:
    how: dict[str, Any] = {"model": "two", "messages": asking(), **GREEDY, "n": 2, "seed": 3}
    how["temperature"] = 0.9
    whole = client.chat.completions.create(**how)
    chunks = list(
        client.chat.completions.create(**how, stream=True, stream_options={"include_usage": True})
    )
    *parts, last = chunks
    assert (last.choices, last.usage) == ([], whole.usage)
    assert len({chunk.id for chunk in chunks}) == 1
    for index in (0, 1):
        mine = [c for chunk in parts for c in chunk.choices if c.index == index]
        assert mine[0].delta.role == "assistant"
        text = "".join(choice.delta.content or "" for choice in mine)
        assert text == whole.choices[index].message.content
        assert [c.finish_reason for c in mine if c.finish_reason] == ["length"]
        assert len(mine) > 4
    assert whole.choices[0].message.content != whole.choices[1].message.content


def test_requests_side_by_side_get_what_each_gets_alone(client: openai.OpenAI) -> None:
    def ask(number: int) -> str | None:
        name = ("one", "two", "base")[number % 3]
        done = client.chat.completions.create(model=name, messages=asking(f"{number}?"), **GREEDY)
        return done.choices[0].message.content

    alone = [ask(number) for number in range(9)]
    with ThreadPoolExecutor(9) as pool:
        assert list(pool.map(ask, range(9))) == alone
    assert len(set(alone)) > 6


class Record(BaseModel):
    title: str
    year: int


def test_structured_outputs(client: openai.OpenAI) -> None:
    done = client.chat.completions.parse(
        model="one", messages=asking(), response_format=Record, max_tokens=60, temperature=1.2
    )
    record = done.choices[0].message.parsed
    assert isinstance(record, Record)
    assert done.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ({"model": "three"}, openai.NotFoundError, "no model of this name"),
        ({"temperature": -1}, openai.BadRequestError, "temperature=-1 is out of range"),
        ({"logprobs": True}, openai.BadRequestError, "logprobs=true is not supported"),
        ({"messages": asking("x " * 2000)}, openai.BadRequestError, "has room for 1024"),
        ({"messages": []}, openai.BadRequestError, "at least one message"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]},
            openai.BadRequestError,
            "shows no tools",
        ),
        ({"n": 5}, openai.BadRequestError, "at most 4"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_the_client_raises_what_it_should(
    client: openai.OpenAI, how: dict[str, Any], error: type[openai.APIStatusError], message: str,
    stream: bool,
) -> None:  # fmt: skip
    whole: dict[str, Any] = {"model": "one", "messages": asking(), "stream": stream, **how}
    with pytest.raises(error, match=message) as caught:
        client.chat.completions.create(**whole)
    assert caught.value.type == "invalid_request_error"


def post(url: str, content: bytes, **headers: str) -> httpx2.Response:
    headers = {"Content-Type": "application/json", **headers}
    return httpx2.post(f"{url}/chat/completions", content=content, headers=headers, timeout=60)


BODY = json.dumps({"model": "one", "messages": asking(), **GREEDY}).encode()


@pytest.mark.parametrize(
    ("content", "headers", "status", "message"),
    [
        (b"{", {}, 400, "the request is no JSON"),
        (b"\xff\xff", {}, 400, "the request is no JSON"),
        (b"[" * 5000 + b"]" * 5000, {}, 400, "nested more than"),
        (b"[]", {}, 400, "must be a JSON object, this is an array"),
        (BODY, {"Content-Type": "text/plain"}, 400, "Content-Type: application/json"),
        (BODY, {"Host": "evil.example"}, 400, "under the name localhost alone"),
        (BODY, {"Host": "evil.example:port"}, 400, "under the name localhost alone"),
        (BODY, {"Host": "user@evil.example"}, 400, "under the name localhost alone"),
        (BODY, {"Host": "LOCALHOST:1"}, 200, ""),
        (b" " * (4 * 2**20 + 1), {}, 413, "larger than 4 MiB"),
    ],
)
def test_wrong_requests(
    url: str, content: bytes, headers: dict[str, str], status: int, message: str
) -> None:
    answer = post(url, content, **headers)
    assert answer.status_code == status
    if status != 200:
        assert message in answer.json()["error"]["message"]


def test_a_body_of_unknown_length_is_bounded(url: str) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(200):
            yield b" " * 2**16

    with httpx2.Client() as client:
        try:
            answer = client.post(
                f"{url}/chat/completions",
                content=endless(),
                headers={"Content-Type": "application/json"},
            )
        except httpx2.TransportError:
            return  # it hung up in the middle
    assert answer.status_code == 413


def test_a_body_that_drips_is_given_up(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_module, "BODY_SECONDS", 0.2)
    host, port = url.removeprefix("http://").removesuffix("/v1").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        head += "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        connection.sendall(head.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/nothing", 404), ("GET", "/v1/chat/completions", 405), ("GET", "/docs", 404)],
)
def test_other_routes(url: str, method: str, path: str, status: int) -> None:
    answer = httpx2.request(method, url.removesuffix("/v1") + path)
    assert answer.status_code == status
    assert "is not served here" in answer.json()["error"]["message"]


def test_a_key_is_asked_for(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    with running(shop, key=KEY) as url:
        for given in ({}, {"Authorization": f"Bearer {KEY}x"}, {"Authorization": f"Basic {KEY}"}):
            assert httpx2.get(f"{url}/models", headers=given).status_code == 401
            answer = post(url, BODY, **given)
            assert answer.status_code == 401
            assert answer.json()["error"]["code"] == "invalid_api_key"
        answer = post(url, BODY, Authorization=f"Bearer {KEY}", Host="any.example")
        assert answer.status_code == 200
        with (
            openai.OpenAI(base_url=url, api_key="wrong", max_retries=0) as client,
            pytest.raises(openai.AuthenticationError),
        ):
            client.models.list()
    seen = capsys.readouterr()
    assert KEY not in seen.out + seen.err


def test_nothing_of_a_prompt_is_logged(
    shop: Shop, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "xylophone"

    def crash(base: Any, turns: Any, **more: Any) -> None:
        raise ValueError(f"cannot digest {secret}")

    with running(shop) as url, openai.OpenAI(base_url=url, api_key="x", max_retries=0) as client:
        how: dict[str, Any] = {"model": "one", "messages": asking(secret), **GREEDY}
        client.chat.completions.create(**how)
        monkeypatch.setattr(engine_module, "decode", crash)
        with pytest.raises(openai.InternalServerError, match="server failed: ValueError") as error:
            client.chat.completions.create(**how)
        assert secret not in str(error.value)
        with pytest.raises(openai.APIError, match="server failed: ValueError"):
            list(client.chat.completions.create(**how, stream=True))
        monkeypatch.setattr(engine_module, "decode", decode)
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.create(**{**how, "model": secret, "messages": 3})
        assert client.chat.completions.create(**how).choices
    seen = capfd.readouterr()
    assert secret not in seen.out + seen.err
    assert seen.out.count("! a request failed: ValueError") == 2
    assert "test_endpoint.py" in seen.out  # where it happened is told
    assert seen.out.count("one: ") == 2


def wait_until(true: Any) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_that_goes_away_stops_costing(
    url: str, client: openai.OpenAI, turns: list[Any], stream: bool
) -> None:
    long = {"model": "two", "messages": asking(), "max_tokens": 900, "stream": stream}
    host, port = url.removeprefix("http://").removesuffix("/v1").split(":")
    body = json.dumps(long).encode()
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        wait_until(lambda: turns and len(turns[0].ids) > 5)
    wait_until(lambda: turns[0].cancelled)
    done = client.chat.completions.create(model="one", messages=asking(), **GREEDY)
    assert done.choices
    assert len(turns[0].ids) < 900
    assert len(turns) == 2


def test_stopping_tells_those_who_wait(
    shop: Shop, turns: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether they are answered together, or one waits for the other."""
    submitted: list[Any] = []
    submit = Engine.submit

    def noting(engine: Engine, job: Any) -> None:
        submit(engine, job)
        submitted.append(job)

    monkeypatch.setattr(Engine, "submit", noting)
    with ThreadPoolExecutor(2) as pool:
        with running(shop) as url:
            long = {"model": "two", "messages": asking(), "max_tokens": 900}
            whole = pool.submit(post, url, json.dumps(long).encode())
            streamed = pool.submit(post, url, json.dumps({**long, "stream": True}).encode())
            wait_until(lambda: len(submitted) == 2 and turns and len(turns[0].ids) > 3)
        assert whole.result().status_code == 503
        assert "being stopped" in whole.result().json()["error"]["message"]
        lines = streamed.result().text.strip().split("\n\n")
        assert "being stopped" in json.loads(lines[-1].removeprefix("data: "))["error"]["message"]
    assert all(len(turn.ids) < 900 for job in submitted for turn in job.turns)
