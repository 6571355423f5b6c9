"""The coherence core: lanes and messages. No I/O, no threads, no clock."""

from .journal import Debt, Journal
from .lane import (
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
from .messages import RESERVED, Message, pack_message, parse_message

__all__ = [
    "RESERVED",
    "Action",
    "Apply",
    "Attach",
    "Debt",
    "Detach",
    "Forked",
    "Journal",
    "Lane",
    "LaneCounters",
    "Message",
    "Position",
    "Reconnect",
    "State",
    "Suspect",
    "Vouch",
    "pack_message",
    "parse_message",
]
