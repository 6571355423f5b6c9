"""The coherence core: lanes and messages. No I/O, no threads, no clock."""

from .lane import Action, Apply, Attach, Detach, Lane, LaneCounters, Position, Reconnect, State, Suspect, Vouch
from .messages import OPERATIONS, RESERVED, Message, pack_message, parse_message

__all__ = [
    "OPERATIONS",
    "RESERVED",
    "Action",
    "Apply",
    "Attach",
    "Detach",
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
