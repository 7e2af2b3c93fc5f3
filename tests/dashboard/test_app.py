"""The routes over a real server: streams, errors, slow viewers, masks, who may come in."""

from __future__ import annotations

from collections.abc import Iterator
import json
import socket
import threading
import time
from typing import Any

import httpx
import msgspec
import pytest

from services.dashboard import entrance
from services.dashboard.app import Dashboard
from services.dashboard.server import Server
from services.dashboard.settings import Settings
from services.dashboard.system import Alarm, Alarms
from services.local.ports import free_port
from tailrace import events, topics
from tailrace.errors import LogError, SettingsError
from tailrace.stream import read_all
from tests.dashboard.life import START_MS, Life
from tests.local.until import until

SCRIPT = "<script>alert(1)</script>"


class Running:
    """A served dashboard over a small past, and a client."""

    def __init__(self, life: Life, **changes: Any) -> None:
        self.life = life
        settings = Settings(port=free_port(), refresh_s=0.05, lag_s=0.05, **changes)
        self.dashboard = Dashboard(
            settings, life.log, now_ms=lambda: life.now_ms + time.monotonic_ns() % 1000
        )
        self.server = Server(self.dashboard)
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        self.url = f"http://127.0.0.1:{settings.port}"
        self.http = httpx.Client(base_url=self.url, timeout=20.0, trust_env=False)
        until(lambda: self.server.started, "the server")
        until(lambda: self.http.get("/ready").status_code == 200, "the picture")

    def stop(self) -> None:
        self.http.close()
        self.server.should_exit = True
        self.thread.join(20)
        assert not self.thread.is_alive()

    def events(self, path: str, count: int, **headers: str) -> list[tuple[str, Any]]:
        """The first events of a stream: name and data."""
        found, name = [], ""
        with self.http.stream("GET", path, headers=headers) as answer:
            assert answer.status_code == 200, answer.read()
            for line in answer.iter_lines():
                if line.startswith("event: "):
                    name = line[7:]
                elif line.startswith("data: "):
                    found.append((name, json.loads(line[6:])))
                    if len(found) == count:
                        break
        return found

    def refused(self, path: str, status: int) -> str:
        answer = self.http.get(path)
        assert answer.status_code == status, answer.text
        error = answer.json()["error"]
        assert set(error) == {"message", "type"}
        return str(error["message"])


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    life = Life()
    for version in (1, 2):
        life.learn(1.0, version, text=SCRIPT + "x" * 100_000)
    gateway, hosts = "http://127.0.0.1:8080/", ("Page.Example",)
    running = Running(life, gateway_url=gateway, hosts=hosts, why_timeout_s=10.0)
    yield running
    running.stop()


def turn_of(running: Running) -> str:
    return str(running.http.get("/api/search").json()["found"][0]["interaction_id"])


def test_the_whole_picture_comes_at_once_and_again_on_every_reconnect(running: Running) -> None:
    whole = running.http.get("/api/now").json()
    for _ in range(2):
        names = [name for name, _ in running.events("/api/stream", len(whole))]
        assert set(names) == set(whole)
    found = dict(running.events("/api/stream", len(whole)))
    assert found["versions"] == whole["versions"] and found["account"]["balanced"]


def test_what_happens_comes_to_an_open_page(running: Running) -> None:
    steps = running.http.get("/api/now").json()["training"]["steps"]
    with running.http.stream("GET", "/api/stream") as answer:
        lines = answer.iter_lines()
        while next(lines) != "event: lag":  # the last section of the whole
            pass
        running.life.learn(1.0, steps + 1)
        while next(lines) != "event: training":
            pass
        next(lines)
        assert json.loads(next(lines).removeprefix("data: "))["steps"] == steps + 1


def test_a_viewer_that_does_not_read_slows_nobody_and_gets_the_newest(running: Running) -> None:
    feed, count = running.dashboard.feed, 60
    with socket.socket() as slow, running.http.stream("GET", "/api/stream") as quick:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", running.dashboard.settings.port))
        slow.sendall(b"GET /api/stream HTTP/1.1\r\nhost: localhost\r\n\r\n")
        until(lambda: feed.viewers == 2, "both viewers")
        lines = quick.iter_lines()
        for number in range(count):  # 18 MB: more than any buffer on the way
            long = Alarm(stream="x" * 300_000, state="fired", time_ms=0)
            feed.publish({"alarms": Alarms(recent=[long], fired=number)})
            while not next(lines).endswith(f'"fired":{number}}}'):
                pass
        skipped, received = feed.skipped, b""
        slow.settimeout(20.0)
        while f'"fired":{count - 1}}}'.encode() not in received[-400_000:]:
            received += slow.recv(1 << 20)
        assert received.count(b"event: alarms") < count
        assert feed.skipped > skipped
    until(lambda: feed.viewers == 0, "they left")


def test_records_of_a_topic_as_they_come(running: Running) -> None:
    found = running.events("/api/tail?topic=feedback", 2)
    assert [name for name, _ in found] == ["record", "record"]
    first = found[0][1]
    assert first["event"]["metric"] == "thumbs" and first["topic"] == "feedback"
    assert first["time"] < running.life.now_ms
    again = running.events(f"/api/tail?topic=feedback&since={first['cursor']}", 1)
    assert again[0][1]["cursor"] == first["cursor"] + 1
    seen = {"last-event-id": str(first["cursor"])}
    resumed = running.events("/api/tail?topic=feedback", 1, **seen)
    assert resumed[0][1]["cursor"] == first["cursor"] + 1
    restarted = {"last-event-id": "1"}  # a cursor of another life of the dashboard
    assert running.events("/api/tail?topic=feedback", 1, **restarted)[0][1] == first
    assert first["cursor"] > START_MS * 1000


def test_a_filter_is_words_in_any_case(running: Running) -> None:
    path = "/api/tail?topic=receipts&filter=TRAINED trainer"
    for _, row in running.events(path, 2):
        assert row["event"]["outcome"] == "trained"


def test_raw_and_foreign_records_are_shown_as_what_they_are(running: Running) -> None:
    running.life.producer.append("alarms", b"<b>not an alarm</b>", headers={"why": b"\xff"})
    ((_, row),) = running.events("/api/tail?topic=alarms", 1)
    assert row["invalid"]["reason"] and row["bytes"] == 19 and row["headers"] == {"why": "\ufffd"}
    ((_, schema), *_) = running.events("/api/tail?topic=schemas", 1)
    assert "invalid" not in schema and "event" not in schema


def test_why_an_answer_and_a_version(running: Running) -> None:
    turn = turn_of(running)
    found = running.http.get(f"/api/why/{turn}").json()
    assert found["kind"] == "interaction" and found["decisions"][0]["fate"]["outcome"] == "trained"
    said = found["feedback"][0]["record"]["feedback_id"]
    assert running.http.get(f"/api/why/{said}").json()["feedback_id"] == said
    assert running.http.get("/api/why/1").json()["kind"] == "version"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/why/default:s~01HF7YAT00000", 404),
        ("/api/why/999", 404),
        ("/api/why/nonsense", 400),
        (f"/api/why/{SCRIPT}", 400),
        ("/api/why/default:s", 400),
        ("/api/why/%00", 400),
        ("/api/why/" + "9" * 30, 400),
        ("/api/tail?topic=model-chunks", 400),
        ("/api/tail?topic=feedback&since=-1", 400),
        ("/api/search?limit=x", 400),
        ("/api/search?since=yesterday", 400),
        ("/api/nothing", 404),
        ("/static/../app.py", 404),
        ("/static/%2e%2e/app.py", 404),
    ],
)
def test_what_cannot_be_answered_is_said(running: Running, path: str, status: int) -> None:
    assert running.refused(path, status)


def test_searching_by_tag_and_time(running: Running) -> None:
    found = running.http.get("/api/search", params={"q": "alert(1)", "since": "10m"}).json()
    assert len(found["found"]) == 2 and found["found"][0]["asked"].startswith(SCRIPT)
    assert running.http.get("/api/search?tag=x&user=u&session=s").json()["found"] == []
    limited = running.http.get("/api/search?limit=1").json()
    assert len(limited["found"]) == 1 and limited["more"]


def test_every_answer_forbids_what_the_page_does_not_need(running: Running) -> None:
    for path in ("/api/about", "/api/nothing", "/metrics"):
        headers = running.http.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "connect-src 'self' http://127.0.0.1:8080;" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"


def test_another_name_for_this_host_is_not_this_page(running: Running) -> None:
    answer = running.http.get("/api/now", headers={"host": "evil.example:80"})
    assert answer.status_code == 421 and "access-control-allow-origin" not in answer.headers
    for host in ("localhost", "LOCALHOST:80", "127.0.0.1:1", "[::1]:8090", "page.example"):
        assert running.http.get("/api/about", headers={"host": host}).status_code == 200
    for path in ("/health", "/healthz", "/ready", "/readyz", "/metrics"):
        assert running.http.get(path, headers={"host": "10.0.0.1:8090"}).status_code == 200


def test_a_new_page_is_shown_after_an_upgrade(running: Running) -> None:
    answer = running.http.get("/static/main.js")
    assert answer.status_code == 200 and answer.headers["cache-control"] == "no-cache"


def test_what_it_says_of_itself(running: Running) -> None:
    about = running.http.get("/api/about").json()
    assert about["gateway"] == "http://127.0.0.1:8080" and about["masked"] is False
    assert "model-chunks" not in about["topics"] and "prompts" in about["topics"]
    assert "reward.now.share" in running.http.get("/api/fields").json()
    assert "tailrace_dashboard_records_total" in running.http.get("/metrics").text


def test_masked_content_is_nowhere() -> None:
    life = Life()
    written = dict.fromkeys(("stop", "bad_words", "response_format"), '["secret"]')
    sampling = written | {"temperature": "0.5", "stop_token_ids": "[1]"}
    turn = life.learn(1.0, 1, text="my secret", user="u1", sampling=sampling)
    said = events.Feedback(
        feedback_id=f"{turn}!the-category",
        interaction_id=turn,
        event_time_ms=life.now_ms,
        kind="category",
        category="secret",
    )
    life.writer.write(topics.FEEDBACK, said)
    life.reward(turn, 1.0, sampling=sampling)
    (record,) = [r for r in read_all(life.log, "feedback") if b"!the-category" in (r.value or b"")]
    foreign = msgspec.structs.replace(record, headers={"note": b"my secret"})
    life.writer.bury(foreign, "undecodable", "my secret").result()
    running = Running(life, mask_content=True)
    try:
        texts = [running.http.get(f"/api/why/{turn}").text, running.http.get("/api/search").text]
        counts = {"prompts": 1, "outputs": 1, "feedback": 2, "trajectories": 2}
        for topic, count in (counts | {"receipts": 2, "dead-letters": 1}).items():
            texts.append(str(running.events(f"/api/tail?topic={topic}", count)))
        texts.append(running.http.get("/api/now").text)
        assert not [text for text in texts if "secret" in text or "a comment" in text]
        assert '"temperature":"0.5"' in texts[0] and "'stop_token_ids': None" in texts[2]
        assert "undecodable" in texts[7]
        assert "u1" in texts[1] and running.http.get("/api/about").json()["masked"]
        assert running.http.get("/api/search?q=secret").json()["found"] == []
    finally:
        running.stop()


def test_streams_have_a_bound_and_why_has_a_time() -> None:
    life = Life()
    turn = life.learn(1.0, 1)
    running = Running(life, viewers_limit=1, why_timeout_s=0.2, why_at_once=1)
    held = threading.Event()
    try:
        with running.http.stream("GET", "/api/stream") as answer:
            lines = answer.iter_lines()
            next(lines)
            assert "open already" in running.refused("/api/stream", 503)
        offsets_at = life.log.offsets_at

        def hang(topic: str, time_ms: int) -> dict[int, int]:
            held.wait(20)
            raise LogError("gone")

        life.log.offsets_at = hang  # type: ignore[method-assign]
        assert "0.2 s" in running.refused(f"/api/why/{turn}", 504)
        assert "0.2 s" in running.refused("/api/why/1", 504)  # it waits for its turn
        held.set()

        def status() -> int:
            return running.http.get(f"/api/why/{turn}").status_code

        until(lambda: status() == 503, "what the log says")
        life.log.offsets_at = offsets_at  # type: ignore[method-assign]
        until(lambda: status() == 200, "the answer")
    finally:
        held.set()
        running.stop()


def test_it_listens_on_loopback_unless_it_is_told_twice() -> None:
    entrance.check(Settings())
    entrance.check(Settings(host="0.0.0.0", exposed=True))
    with pytest.raises(SettingsError, match="exposed"):
        entrance.check(Settings(host="0.0.0.0"))
    for url in ("127.0.0.1:8080", "ftp://x", "http://[", "http://x:0", "http://u:pw@x"):
        with pytest.raises(SettingsError, match="gateway_url") as caught:
            entrance.check(Settings(gateway_url=url))
        assert "pw" not in str(caught.value)
