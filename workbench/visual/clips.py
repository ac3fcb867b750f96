"""Video files by their time stamps: upright size, frames and seconds; never a nominal rate."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from workbench.inputs.files import require_file
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

LOCAL_ONLY = {"protocol_whitelist": "file"}
"""A playlist from a stranger must not make FFmpeg fetch anything."""
EXTRA = "pip install 'visual-token-workbench[vision]'"


NO_TIMES, JUMPING_TIMES = 0x0080, 0x0200
"""Flags of a format in libavformat's avformat.h: AVFMT_NOTIMESTAMPS and AVFMT_TS_DISCONT."""
MOST_STEP_S = 10.0
"""Seconds between frames beyond which a broadcast stream's time stamps have jumped: ffmpeg's
default ``dts_delta_threshold``, past which it takes them for a discontinuity."""


class Clip(NamedTuple):
    """What a video file holds: upright pixels, frames in all, seconds from first to last end."""

    width: int
    height: int
    total_frames: int
    duration_s: float

    @property
    def fps(self) -> float:
        """Frames a second, on average."""
        return self.total_frames / self.duration_s


def video_clip(path: Path) -> Clip:
    """Size, frames and duration of a video file; its packets are read, one frame is decoded.

    Frames are those that are shown: an edit list hides others. Of several streams FFmpeg's choice
    counts, which is no cover picture. Raises RequestError, naming the file, where PyAV is
    missing, or the file has no readable video, or no time stamps that follow one another.
    """
    require_file(path, "video")
    try:
        import av
    except ImportError:
        raise RequestError(f"video {str(path)!r}: reading video needs PyAV: {EXTRA}") from None
    try:
        with av.open(str(path.resolve()), options=LOCAL_ONLY) as container:
            if not container.streams.video:
                raise RequestError(f"video {str(path)!r}: has no video stream")
            if container.format.flags & NO_TIMES:
                raise RequestError(
                    f"video {str(path)!r}: a bare {container.format.name} stream tells no time; "
                    "put it into a container, such as mkv"
                )
            frame = next(container.decode(shown_stream(container)), None)
        # Opened anew: not every format can be sought in.
        with av.open(str(path.resolve()), options=LOCAL_ONLY) as container:
            jumps = bool(container.format.flags & JUMPING_TIMES)
            count, seconds = _times(container, path if jumps else None)
    except av.FFmpegError as error:
        raise RequestError(f"video {str(path)!r}: not a readable video: {error}") from None
    if frame is None or not count:
        raise RequestError(f"video {str(path)!r}: no frame could be decoded")
    if not seconds:
        raise RequestError(f"video {str(path)!r}: has neither time stamps nor a rate")
    turned = frame.rotation % 180 != 0
    size = (frame.height, frame.width) if turned else (frame.width, frame.height)
    return Clip(*size, total_frames=count, duration_s=seconds)


def shown_stream(container: "InputContainer") -> "VideoStream":
    """The video stream that FFmpeg would show, of a file that has one."""
    stream = container.streams.best("video")
    return container.streams.video[0] if stream is None else stream  # type: ignore[return-value]


def _times(container: "InputContainer", jumping: Path | None) -> tuple[int, float]:
    """Frames that are shown, and seconds from the first's time stamp to the last's end.

    ``jumping`` names a file whose format lets time stamps jump; RequestError where they do.
    """
    stream = shown_stream(container)
    count, total = 0, 0
    before: int | None = None
    first: int | None = None
    last: int | None = None
    length = 0
    for packet in container.demux(stream):
        if not packet.size or packet.is_discard:
            continue
        count += 1
        total += packet.duration or 0
        if jumping is not None and packet.dts is not None and stream.time_base is not None:
            step = 0.0 if before is None else float((packet.dts - before) * stream.time_base)
            if not 0 <= step <= MOST_STEP_S:
                raise RequestError(
                    f"video {str(jumping)!r}: its time stamps jump by {step:,.1f} s before frame "
                    f"{count}, as in recordings put together; its length is not known"
                )
            before = packet.dts
        time = packet.pts if packet.pts is not None else packet.dts
        if time is None:
            continue
        first = time if first is None else min(first, time)
        if last is None or time >= last:
            last, length = time, packet.duration or 0
    base = stream.time_base
    if first is not None and last is not None and base is not None and last > first:
        if not length:  # It is shown as long as the others on average.
            return count, float((last - first) * base) * count / (count - 1)
        return count, float((last - first + length) * base)
    if total and base is not None:
        return count, float(total * base)
    rate: Any = stream.average_rate or stream.guessed_rate
    return count, float(count / rate) if rate else 0.0
