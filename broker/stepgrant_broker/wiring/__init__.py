"""Wiring: the only place that builds concrete adapters and puts a broker together.

`build(settings)` gives a running `Broker`, `serve(broker)` its HTTP face, `bootstrap` what local administrators need.
"""

from stepgrant_broker.wiring.broker import Broker, build
from stepgrant_broker.wiring.clock import AdvancingClock, SystemClock, SystemIds
from stepgrant_broker.wiring.logs import configure_logs
from stepgrant_broker.wiring.server import Listening, listen, serve

__all__ = [
    "AdvancingClock",
    "Broker",
    "Listening",
    "SystemClock",
    "SystemIds",
    "build",
    "configure_logs",
    "listen",
    "serve",
]
