"""LangGraph's own conformance suite with our tripwires, and what the tripwires refuse to save."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import START, MessagesState, StateGraph

from stepgrant._secrets import LIVE
from stepgrant.integrations.langgraph import SecretInCheckpoint, TripwireSaver, TripwireSerde

SECRET = "sk-live-0123456789-not-really"
BASE = {"put": 17, "put_writes": 10, "get_tuple": 10, "list": 16, "delete_thread": 5}


class Memory(TripwireSaver, InMemorySaver):
    pass


class Sqlite(TripwireSaver, SqliteSaver):
    pass


class AsyncSqlite(TripwireSaver, AsyncSqliteSaver):
    pass


class Backwards:
    """A cipher for tests: what is encrypted is not what was written."""

    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        return "backwards", plaintext[::-1]

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        return ciphertext[::-1]


@pytest.fixture
def secret() -> Iterator[str]:
    LIVE.add([SECRET], until=math.inf)
    yield SECRET
    LIVE.forget([SECRET])


async def sqlite_saver() -> AsyncIterator[AsyncSqliteSaver]:
    async with AsyncSqlite.from_conn_string(":memory:") as saver:
        saver.serde = TripwireSerde()
        yield saver


async def memory_saver() -> AsyncIterator[Memory]:
    yield Memory(serde=EncryptedSerializer(Backwards(), TripwireSerde()))


@pytest.mark.parametrize("make", [sqlite_saver, memory_saver])
async def test_langgraphs_own_conformance_suite(make: Any) -> None:  # noqa: ANN401 - its factories are not typed
    report = await validate(checkpointer_test(name=make.__name__)(make), capabilities=set(BASE))
    passed = {name: result.tests_passed for name, result in report.results.items() if name in BASE}
    assert all(result.passed for name, result in report.results.items() if name in BASE), report.to_dict()
    assert passed == BASE
    assert sum(passed.values()) == 58


def graph_with(saver: Any) -> Any:  # noqa: ANN401 - savers and graphs
    graph = StateGraph(MessagesState)
    graph.add_node("talk", lambda _: {"messages": []})
    graph.add_edge(START, "talk")
    return graph.compile(checkpointer=saver)


def in_state(secret: str) -> tuple[Any, Any]:
    return {"messages": [HumanMessage(f"my key is {secret}")]}, {"configurable": {"thread_id": "t-1"}}


def in_configurable(secret: str) -> tuple[Any, Any]:
    return {"messages": []}, {"configurable": {"thread_id": "t-1", "api_key": secret}}


def in_metadata(secret: str) -> tuple[Any, Any]:
    return {"messages": []}, {"configurable": {"thread_id": "t-1"}, "metadata": {"note": secret}}


@pytest.mark.parametrize("where", [in_state, in_configurable, in_metadata])
@pytest.mark.parametrize("encrypted", [False, True])
def test_live_secret_is_not_saved(where: Any, secret: str, tmp_path: Path, *, encrypted: bool) -> None:  # noqa: ANN401 - one of three
    """Neither in the clear nor encrypted: encryption does not cover metadata, and a key may be lost, too."""
    serde = EncryptedSerializer(Backwards(), TripwireSerde()) if encrypted else TripwireSerde()
    path = tmp_path / "checkpoints.sqlite"
    connection = sqlite3.connect(path, check_same_thread=False)
    given, config = where(secret)
    with pytest.raises(SecretInCheckpoint) as raised:
        graph_with(Sqlite(connection, serde=serde)).invoke(given, config, durability="sync")
    assert secret not in str(raised.value)
    connection.close()
    data = path.read_bytes()
    assert secret.encode() not in data
    assert secret.encode()[::-1] not in data


async def test_live_secret_is_not_saved_asynchronously(secret: str, tmp_path: Path) -> None:
    given, config = in_configurable(secret)
    async with AsyncSqlite.from_conn_string(str(tmp_path / "checkpoints.sqlite")) as saver:
        with pytest.raises(SecretInCheckpoint):
            await graph_with(saver).ainvoke(given, config, durability="sync")


def test_pending_writes_with_a_secret_in_their_config_are_refused(secret: str) -> None:
    """What a node writes is saved before its checkpoint is."""
    saver = Memory(serde=TripwireSerde())
    config: Any = {"configurable": {"thread_id": "t-1", "checkpoint_ns": "", "checkpoint_id": empty_checkpoint()["id"]}}
    with pytest.raises(SecretInCheckpoint):
        saver.put_writes(config, [("messages", secret)], "task-1")
    config["configurable"]["api_key"] = secret
    with pytest.raises(SecretInCheckpoint, match="metadata"):
        saver.put_writes(config, [("messages", "nothing")], "task-1")


def test_dead_secret_is_nobodys_concern(secret: str) -> None:
    LIVE.forget([secret])
    given, config = in_state(secret)
    graph_with(Memory(serde=TripwireSerde())).invoke(given, config)


def test_serializer_stays_a_tripwire_when_langgraph_narrows_it(secret: str) -> None:
    """`with_allowlist` makes copies of savers and serializers."""
    narrowed = TripwireSerde(allowed_msgpack_modules=[("a", "b")]).with_msgpack_allowlist([("c", "d")])
    with pytest.raises(SecretInCheckpoint):
        narrowed.dumps_typed({"key": secret})
