"""Frames and seconds of video files by their time stamps, in the containers that people have."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from workbench.visual.clips import video_clip
from workbench.visual.pixels import read_frames
from workbench.visual.tokens import tokens
from workbench.vocabulary.errors import RequestError

STEADY = [i / 10 for i in range(30)]
RECORDING = [i / 30 for i in range(60)] + [2 + 2 * i for i in range(30)]
"""A screen: 30 frames a second for 2 s, then one every 2 s up to 60 s."""
CODECS = {"webm": "libvpx", "avi": "mpeg4", "ts": "mpeg2video"}


def record(path: Path, times: list[float], **options: str) -> Path:
    """A small video whose frames have these time stamps, in seconds."""
    form = "mpegts" if path.suffix == ".ts" else None
    base = Fraction(1, 25 if path.suffix == ".ts" else 1000)
    with av.open(str(path), "w", format=form, options=options) as container:
        steady = path.suffix in (".avi", ".ts")
        rate = 10 if path.suffix == ".avi" else 25 if steady else 30
        stream = container.add_stream(CODECS.get(path.suffix[1:], "libx264"), rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        if not steady:
            stream.codec_context.time_base = base
        for number, time in enumerate(times):
            shade = np.full((48, 64, 3), 4 * number % 255, dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(shade, format="rgb24")
            if not steady:
                frame.pts, frame.time_base = round(time / base), base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("suffix", ["mkv", "webm", "mp4", "mov"])
def test_a_variable_rate(suffix: str, tmp_path: Path) -> None:
    clip = video_clip(record(tmp_path / f"screen.{suffix}", RECORDING))
    assert clip.total_frames == 90
    assert clip.duration_s == pytest.approx(60, abs=2.1)
    assert clip.duration_s >= 60
    count = tokens("mistral-7b-v0.3", "pooled", video=tmp_path / f"screen.{suffix}", fps=1)
    assert 60 <= count["frames"] <= 63


@pytest.mark.parametrize(("suffix", "rate"), [("avi", 10), ("ts", 25), ("mkv", 10), ("mp4", 10)])
def test_a_steady_rate(suffix: str, rate: int, tmp_path: Path) -> None:
    clip = video_clip(record(tmp_path / f"a.{suffix}", STEADY))
    assert clip.total_frames == 30
    assert clip.fps == pytest.approx(rate, rel=0.03)


def test_no_duration_in_the_header(tmp_path: Path) -> None:
    """A recording that was never closed: nothing says how long it is but its last frame."""
    path = record(tmp_path / "live.mkv", RECORDING, live="1")
    with av.open(str(path)) as container:
        assert container.duration is None or container.duration <= 0 or container.duration > 5e7
    assert video_clip(path).duration_s >= 60


def test_frames_that_an_edit_list_hides_are_not_counted(tmp_path: Path) -> None:
    path = record(tmp_path / "cut.mp4", STEADY, movflags="use_metadata_tags")
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 12
    data[at : at + 4] = struct.pack(">I", 1000)  # Of 3 s the first is shown.
    path.write_bytes(data)
    clip = video_clip(path)
    assert clip.total_frames < 16
    assert clip.duration_s == pytest.approx(1, abs=0.45)
    frames = [*read_frames(path, clip.total_frames, 3)]
    assert len(frames) == 3


def test_a_phone_held_upright(tmp_path: Path) -> None:
    path = record(tmp_path / "phone.mp4", STEADY)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44
    one, end = 1 << 16, 1 << 30
    data[at : at + 36] = struct.pack(">9i", 0, one, 0, -one, 0, 0, 0, 0, end)
    path.write_bytes(data)
    clip = video_clip(path)
    assert (clip.width, clip.height) == (48, 64)
    assert next(read_frames(path, clip.total_frames, 1)).size == (48, 64)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "avif"])
def test_an_animated_image_is_a_video_or_one_line(suffix: str, tmp_path: Path) -> None:
    shades = [Image.new("RGB", (64, 48), (25 * i, 0, 0)) for i in range(8)]
    path = tmp_path / f"moving.{suffix}"
    shades[0].save(path, save_all=True, append_images=shades[1:], duration=250, loop=0)
    clip, line = None, f"moving.{suffix}"
    try:
        clip = video_clip(path)
    except RequestError as error:
        line = str(error)
    assert f"moving.{suffix}" in line
    assert "\n" not in line
    if suffix in ("gif", "avif"):
        assert clip is not None
    if clip is not None:
        assert clip.total_frames == 8
        assert clip.duration_s == pytest.approx(2.0, abs=0.26)


def test_a_cover_picture_is_not_the_video(tmp_path: Path) -> None:
    path = tmp_path / "cover.mkv"
    with av.open(str(path), "w") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.width = cover.height = 320
        cover.pix_fmt = "yuvj420p"
        film = container.add_stream("libx264", rate=30)
        film.width, film.height, film.pix_fmt = 64, 48, "yuv420p"
        for stream, side, times in ((cover, (320, 320), [0.0]), (film, (48, 64), STEADY)):
            for time in times:
                shade = np.zeros((*side, 3), dtype=np.uint8)
                frame = av.VideoFrame.from_ndarray(shade, format="rgb24")
                frame.pts, frame.time_base = round(time * 1000), Fraction(1, 1000)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    clip = video_clip(path)
    assert (clip.width, clip.height, clip.total_frames) == (64, 48, 30)
    assert next(read_frames(path, 30, 3)).size == (64, 48)


def test_time_stamps_that_jump_are_one_line(tmp_path: Path) -> None:
    """Two recordings put together, the second from hours later, or from before."""
    first, second = (tmp_path / f"{name}.ts" for name in ("a", "b"))
    for path, start in ((first, 0), (second, 20_000)):
        with av.open(str(path), "w", format="mpegts") as container:
            stream = container.add_stream("mpeg2video", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for number in range(25):
                shade = np.zeros((48, 64, 3), dtype=np.uint8)
                frame = av.VideoFrame.from_ndarray(shade, format="rgb24")
                frame.pts, frame.time_base = start * 25 + number, Fraction(1, 25)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    assert video_clip(second).duration_s == pytest.approx(1, abs=0.05)
    both = tmp_path / "both.ts"
    for order in ((first, second), (second, first)):
        both.write_bytes(b"".join(path.read_bytes() for path in order))
        with pytest.raises(RequestError, match=r"time stamps jump by .* s before frame 26"):
            video_clip(both)


def test_what_tells_no_time_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"bare h264 stream tells no time"):
        video_clip(record(tmp_path / "bare.h264", STEADY))


def test_the_rate_of_sampling_is_told(tmp_path: Path) -> None:
    path = record(tmp_path / "a.mkv", STEADY)
    assert tokens("mistral-7b-v0.3", "pooled", video=path)["fps"] == 1.0
    assert tokens("mistral-7b-v0.3", "pooled", video=path, fps=2)["fps"] == 2
    assert "fps" not in tokens("mistral-7b-v0.3", "pooled", video=path, frames=3)


def test_one_frame(tmp_path: Path) -> None:
    clip = video_clip(record(tmp_path / "one.mp4", [0.0]))
    assert clip.total_frames == 1
    assert clip.duration_s > 0
