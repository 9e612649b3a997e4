"""The engines that decisions can be made again on, here: regorus, and OPA where there is an `opa` program.

Rules: an engine is asked for by its name and version, as entries record it, and no other one answers in its place;
every text has a process of its own, which ends when it took too long.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from stepgrant_broker.policy.bundle import Bundle
from stepgrant_broker.policy.embedded import PROBE_DEADLINE_S
from stepgrant_broker.policy.engine_process import EngineFailed, EngineProcess
from stepgrant_broker.policy.opa_tool import OpaTool, ToolAnswer
from stepgrant_broker.policy.rego import ENGINE

KEPT: Final = 4
"""Texts that are kept compiled."""


class EngineMissing(Exception):
    """The engine that is asked for is not here: `str()` says which one is."""


class Engines:
    """The engines of this machine: regorus, and OPA where there is an `opa` program. Use it as a context manager."""

    def __init__(self, tool: OpaTool | None) -> None:
        self._tool = tool
        self._processes: OrderedDict[str, EngineProcess] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes.values():
            process.end()

    @property
    def preferred(self) -> str:
        """The engine that answers where none is recorded."""
        return ENGINE if self._tool is None else self._tool.engine

    def decide(self, bundle: Bundle, engine: str, inputs: Sequence[bytes]) -> list[ToolAnswer]:
        """What this engine says to each input under this text. Raises `EngineMissing`, `OpaToolFailed`."""
        if engine == ENGINE:
            return [self._ask(bundle, one) for one in inputs]
        if self._tool is not None and engine == self._tool.engine:
            return self._tool.decide(bundle, inputs)
        here = ENGINE if self._tool is None else f"{ENGINE} and {self._tool.engine}"
        raise EngineMissing(f"{engine} decided; here are {here}")

    def _ask(self, bundle: Bundle, policy_input: bytes) -> ToolAnswer:
        try:
            process = self._process(bundle)
        except EngineFailed as error:
            return ToolAnswer(error=str(error))
        answer = process.ask(policy_input, seconds=PROBE_DEADLINE_S)
        if answer.error is not None:
            # It may still be busy with what took too long, or be gone.
            self._processes.pop(bundle.digest).end()
        return ToolAnswer(answer.raw, answer.error)

    def _process(self, bundle: Bundle) -> EngineProcess:
        known = self._processes.pop(bundle.digest, None)
        self._processes[bundle.digest] = known or EngineProcess(bundle, bundle.digest)
        if len(self._processes) > KEPT:
            self._processes.popitem(last=False)[1].end()
        return self._processes[bundle.digest]
