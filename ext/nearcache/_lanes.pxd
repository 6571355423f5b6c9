"""Lanes by number, as Python names them: checked at the door."""

from libc.stdint cimport int64_t, uint32_t

from nearcache._core cimport item_t, lane_t, lanes_t


cdef enum:
    MOST_LANES = 32768  # behind them stand as many probations, and an entry has 16 bits for the number of either


cdef inline uint32_t lanes_wanted(object count) except 0:
    if not 1 <= count <= MOST_LANES:
        raise ValueError(f"lanes={count}: there must be 1 to {MOST_LANES} of them")
    return count


cdef inline int64_t lane_number(const lanes_t *lanes, object index) except -1:
    if not 0 <= index < lanes.count:
        raise IndexError(f"lane {index}: there are {lanes.count}")
    return index


cdef inline lane_t *lane_at(lanes_t *lanes, object index) except NULL:
    return &lanes.lane[lane_number(lanes, index)]


cdef inline int depend_on(lanes_t *lanes, item_t *item, object under) except -1:
    """Let what an operation brought depend on another lane than the operation's."""
    cdef lane_t *checked
    if under is not None:
        checked = lane_at(lanes, under[0])
        item.lane = checked - lanes.lane
        item.stamp = under[1]
    return 0
