"""Tripwires for checkpoints: nothing that holds a live secret of this process is saved.

Rules:
* They find what `stepgrant` knows as live, in the forms that `_secrets` knows; they are no proof. A credential belongs
  in the tool that got it, and nowhere else.
* The serializer sees state, messages, interrupt values and `Send` arguments. It does not see a checkpoint's metadata,
  into which LangGraph copies every plain value of `configurable` whose name does not begin with `__`, and which many
  savers write as plain JSON beside any encryption. `TripwireSaver` sees that, too.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    get_checkpoint_metadata,
)
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from stepgrant._secrets import LIVE
from stepgrant.integrations._langgraph_errors import SecretInCheckpoint

if TYPE_CHECKING:
    Saver = BaseCheckpointSaver[Any]
else:
    Saver = object

__all__ = ["TripwireSaver", "TripwireSerde"]


class TripwireSerde(JsonPlusSerializer):
    """LangGraph's serializer, which refuses what holds a live secret. The arguments are those of `JsonPlusSerializer`.

        SqliteSaver(connection, serde=TripwireSerde())
        EncryptedSerializer(cipher, TripwireSerde())

    Raises `SecretInCheckpoint`; nothing is saved then.
    """

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:  # noqa: ANN401  # as its base
        """As its base. Raises `SecretInCheckpoint`."""
        kind, data = super().dumps_typed(obj)
        if LIVE.found_in(bytes(data)):
            raise SecretInCheckpoint(where="what the graph saves")
        return kind, data


class TripwireSaver(Saver):
    """To be mixed into a saver, before it: refuses a live secret in metadata and `configurable`.

        class Saver(TripwireSaver, SqliteSaver): ...
        Saver(connection, serde=TripwireSerde())

    Raises `SecretInCheckpoint`; nothing is saved then.
    """

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """As its base."""
        _refuse(config, metadata)
        return super().put(config, checkpoint, metadata, new_versions)

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """As its base."""
        _refuse(config, metadata)
        return await super().aput(config, checkpoint, metadata, new_versions)

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """As its base."""
        _refuse(config, {})
        super().put_writes(config, writes, task_id, task_path)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """As its base."""
        _refuse(config, {})
        await super().aput_writes(config, writes, task_id, task_path)


def _refuse(config: RunnableConfig, metadata: CheckpointMetadata) -> None:
    saved = get_checkpoint_metadata(config, metadata)
    if LIVE.found_in(json.dumps(saved, ensure_ascii=False, default=repr).encode("utf-8", "surrogatepass")):
        raise SecretInCheckpoint(where="a checkpoint's metadata (configurable is copied into it)")
