"""The coherence core: what may be believed of lanes, and what follows for L1. No I/O, and no threads of its own."""

from .ahead import NOWHERE, OrderedHorizon
from .derived import DERIVED, Derived
from .horizon import Horizon
from .journal import KEEP_NS, Debt, HoldEnd, Journal
from .lane import (
    CHAINED,
    Action,
    Apply,
    Attach,
    Detach,
    Forked,
    Lane,
    LaneCounters,
    Position,
    Reconnect,
    State,
    Suspect,
    Vouch,
)
from .messages import OPERATIONS, RESERVED, TAG_KEY, Message, pack_message, parse_message, unsigned
from .metrics import Histogram
from .token import pack_token, parse_token, version_of

__all__ = [
    "CHAINED",
    "DERIVED",
    "KEEP_NS",
    "NOWHERE",
    "OPERATIONS",
    "RESERVED",
    "TAG_KEY",
    "Action",
    "Apply",
    "Attach",
    "Debt",
    "Derived",
    "Detach",
    "Forked",
    "Histogram",
    "HoldEnd",
    "Horizon",
    "Journal",
    "Lane",
    "LaneCounters",
    "Message",
    "OrderedHorizon",
    "Position",
    "Reconnect",
    "State",
    "Suspect",
    "Vouch",
    "pack_message",
    "pack_token",
    "parse_message",
    "parse_token",
    "unsigned",
    "version_of",
]
