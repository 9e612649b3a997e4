"""Wiring: the only place that builds concrete adapters and puts a broker together.

`build(settings)` gives a running `Broker`, `serve(broker)` its HTTP face, `bootstrap` what local administrators need.
"""

from stepgrant_broker.ledger.findings import Finding, Progress
from stepgrant_broker.policy.bundle import Bundle
from stepgrant_broker.wiring.broker import Broker, build, bundle_of, opened, prepare, starter_with
from stepgrant_broker.wiring.clock import AdvancingClock, SystemClock, SystemIds
from stepgrant_broker.wiring.databases import check_database
from stepgrant_broker.wiring.logs import configure_logs
from stepgrant_broker.wiring.server import Listening, listen, serve

__all__ = [
    "AdvancingClock",
    "Broker",
    "Bundle",
    "Finding",
    "Listening",
    "Progress",
    "SystemClock",
    "SystemIds",
    "build",
    "bundle_of",
    "check_database",
    "configure_logs",
    "listen",
    "opened",
    "prepare",
    "serve",
    "starter_with",
]
