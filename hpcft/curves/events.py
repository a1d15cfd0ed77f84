"""Events as bytes: the few kinds of TensorBoard event that a curve is made of."""

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata

_SCALARS = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="scalars"))


def file_name(sequence: int) -> str:
    """The name of event file number `sequence`, from 1; TensorBoard reads a directory in name order."""
    return f"events.out.tfevents.{sequence:010d}.hpcft"


def version_event(wall_time: float) -> bytes:
    """The event that must come first in every file."""
    event = Event(wall_time=wall_time, file_version="brain.Event:2")
    return bytes(event.SerializeToString())


def start_event(step: int, wall_time: float) -> bytes:
    """An event that tells TensorBoard's Python readers to forget every point at `step` and beyond."""
    event = Event(wall_time=wall_time, step=step, session_log=SessionLog(status=SessionLog.START))
    return bytes(event.SerializeToString())


def scalar_event(tag: str, value: float, step: int, wall_time: float) -> bytes:
    """One point of a curve; `wall_time` in seconds since 1970, `value` rounded to 32 bits."""
    point = Summary.Value(tag=tag, simple_value=value, metadata=_SCALARS)
    event = Event(wall_time=wall_time, step=step, summary=Summary(value=[point]))
    return bytes(event.SerializeToString())
