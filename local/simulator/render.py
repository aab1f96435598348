"""Render a real MP4 from pictures: a slow camera move over each, cross-faded, H.264 that any browser plays.

FFmpeg's filters inside PyAV draw the whole picture. zoompan works on a picture of twice the output's size and in 4:4:4,
so that its whole-pixel steps are half-pixel steps in the video and the move is smooth. The index (moov) is written
before the frames, so playback starts before the download ends. Nothing is written to the disk.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
from av.filter import Graph
from av.filter.context import FilterContext
from av.video.frame import VideoFrame

FPS = 24
FADE_SECONDS = 0.75
OVERSAMPLE = 2
MAX_PIXELS = 1280 * 720  # of a frame: 5 s of them take about a second of one core
MAX_PIXELS_OF_SEVERAL = 960 * 540
MAX_BYTES = 10 * 1024 * 1024
MIN_SIDE = 300  # pixels
MAX_RATIO = 2.5
BAD_PICTURE = "Image pixel is invalid"
# Start and end of the camera (0..1 of the free space, x then y) and its zoom: one row per picture, in turn.
MOVES = (
    ((0.35, 0.55), (0.65, 0.40), (1.0, 1.18)),
    ((0.70, 0.45), (0.30, 0.50), (1.18, 1.04)),
    ((0.50, 0.75), (0.50, 0.25), (1.04, 1.18)),
    ((0.25, 0.30), (0.75, 0.60), (1.16, 1.02)),
)
# The watermark, one row of pixels per line: white letters on a dark band.
MARK = (
    "                         ",
    " #  # #    ### #  #  ### ",
    " # #  #     #  ## # #    ",
    " ##   #     #  # ## # ## ",
    " # #  #     #  #  # #  # ",
    " #  # #### ### #  #  ### ",
    "                         ",
)
MARK_SHARE = 0.3  # of the video's width
DUSKS = (("0x1b2a5c", "0xf2a46b"), ("0x10363f", "0x8fd0b8"), ("0x3a1d4f", "0xf0899b"), ("0x1d2430", "0xa9b9cf"))


class BadPicture(ValueError):
    """A picture that cannot be rendered; the text is the task's task_status_msg."""


@dataclass(frozen=True)
class Job:
    """Hold a video's inputs. Equal jobs give the same video."""

    pictures: tuple[bytes | None, ...]
    """JPEG or PNG files in order of appearance; None (and no picture at all) stands for a drawn gradient."""
    seconds: int
    long_side: int
    """Upper limit of the video's longer side in pixels; the first picture is never enlarged."""
    ratio: str | None = None
    """Such as "16:9"; None = the ratio of the first picture."""
    seed: str = ""
    """Chooses the colours of gradients (the prompt)."""
    marked: bool = False
    """Whether the picture has a watermark in its lower right corner."""

    def key(self) -> str:
        digest = hashlib.sha256(repr((self.seconds, self.long_side, self.ratio, self.seed, self.marked)).encode())
        for one in self.pictures:
            digest.update(hashlib.sha256(one).digest() if one is not None else b"-" * 32)
        return digest.hexdigest()


@dataclass(frozen=True)
class Video:
    data: bytes
    seconds: float


def open_picture(data: bytes) -> VideoFrame:
    """Decode a picture and check it like Kling's task: JPEG or PNG, 10 MB, 300 px, 1:2.5 to 2.5:1."""
    if len(data) > MAX_BYTES or not data.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")):
        raise BadPicture(BAD_PICTURE)
    try:
        with av.open(io.BytesIO(data), "r") as file:
            frame = next(file.decode(file.streams.video[0]))
    except (av.FFmpegError, StopIteration, IndexError, ValueError):
        raise BadPicture(BAD_PICTURE) from None
    short, long = sorted((frame.width, frame.height))
    if short < MIN_SIDE or long > short * MAX_RATIO:
        raise BadPicture(BAD_PICTURE)
    return frame


def render(job: Job) -> Video:
    """Draw and encode the video; raise BadPicture if one of the pictures breaks a rule."""
    stills = [open_picture(one) if one is not None else None for one in job.pictures] or [None]
    width, height = _size(job, stills[0])
    total = job.seconds * FPS + 1
    fade = min(int(FADE_SECONDS * FPS), total // (2 * len(stills))) if len(stills) > 1 else 0
    each = math.ceil((total + (len(stills) - 1) * fade) / len(stills))
    graph = Graph()
    shots = []
    sources = []
    for place, still in enumerate(stills):
        frame = still if still is not None else _gradient(width, height, f"{job.seed}{place}")
        source = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, FPS)
        )
        sources.append((source, frame))
        shots.append(_camera(graph, source, _upright(frame), (width, height), each, place))
    last = shots[0]
    for place, shot in enumerate(shots[1:], start=1):
        offset = place * (each - fade) / FPS
        mix = graph.add("xfade", f"transition=fade:duration={fade / FPS}:offset={offset}")
        last.link_to(mix, 0, 0)
        shot.link_to(mix, 0, 1)
        last = mix
    if job.marked:
        mark = _mark()
        source = graph.add_buffer(width=mark.width, height=mark.height, format=mark.format, time_base=Fraction(1, FPS))
        sources.append((source, mark))
        last = _stamped(graph, last, source, width)
    end = _chain(graph, last, ("format", "yuv420p"), ("buffersink", ""))
    graph.configure()
    for source, frame in sources:
        source.push(frame)
        source.push(None)
    return Video(_encode(_pull(end, total), width, height, total), total / FPS)


def _size(job: Job, first: VideoFrame | None) -> tuple[int, int]:
    """Return the video's size: the requested ratio within the limit, both sides even."""
    if job.ratio:
        across, up = (int(part) for part in job.ratio.split(":"))
    elif first is not None:
        across, up = (first.height, first.width) if abs(first.rotation) == 90 else (first.width, first.height)
    else:
        across, up = 16, 9
    scale = min(
        min(job.long_side, max(first.width, first.height) if first is not None else 960) / max(across, up),
        math.sqrt((MAX_PIXELS if len(job.pictures) < 2 else MAX_PIXELS_OF_SEVERAL) / (across * up)),
    )
    return max(16, round(across * scale / 2) * 2), max(16, round(up * scale / 2) * 2)


def _upright(frame: VideoFrame) -> list[tuple[str, str]]:
    """Return the filters that rotate a photograph upright (Exif orientation, degrees counterclockwise)."""
    return {
        90: [("transpose", "cclock")],
        -90: [("transpose", "clock")],
        180: [("hflip", ""), ("vflip", "")],
        -180: [("hflip", ""), ("vflip", "")],
    }.get(round(frame.rotation), [])


def _camera(
    graph: Graph, source: FilterContext, upright: list[tuple[str, str]], size: tuple[int, int], frames: int, place: int
) -> FilterContext:
    """Crop one picture to the video's ratio and film it for the given number of frames."""
    (x0, y0), (x1, y1), (z0, z1) = MOVES[place % len(MOVES)]
    width, height = size
    big_width, big_height = width * OVERSAMPLE, height * OVERSAMPLE
    ease = f"(1-cos(PI*on/{max(1, frames - 1)}))/2"
    fit = f"w={big_width}:h={big_height}:force_original_aspect_ratio=increase:flags=bicubic"
    move = (
        f"z='{z0}+({z1 - z0})*{ease}':x='(iw-iw/zoom)*({x0}+({x1 - x0})*{ease})'"
        f":y='(ih-ih/zoom)*({y0}+({y1 - y0})*{ease})':d={frames}:s={width}x{height}:fps={FPS}"
    )
    return _chain(
        graph,
        source,
        *upright,
        ("scale", f"{fit}:out_range=tv:out_color_matrix=bt709"),
        ("format", "yuv444p"),
        ("crop", f"{big_width}:{big_height}"),
        ("setsar", "1"),
        ("zoompan", move),
        ("settb", f"1/{FPS}"),
    )


def _chain(graph: Graph, start: FilterContext, *filters: tuple[str, str]) -> FilterContext:
    for name, arguments in filters:
        step = graph.add(name, arguments) if arguments else graph.add(name)
        start.link_to(step)
        start = step
    return start


def _gradient(width: int, height: int, seed: str) -> VideoFrame:
    """Draw a still of soft colours, chosen by the seed."""
    pick = hashlib.sha256(seed.encode()).digest()
    dark, light = DUSKS[pick[0] % len(DUSKS)]
    across = width * (20 + pick[1] % 60) // 100
    graph = Graph()
    far = 0 if across > width // 2 else width - 1
    corners = f"x0={across}:y0={height // 3}:x1={far}:y1={height - 1}"
    start = graph.add("gradients", f"s={width}x{height}:n=2:c0={light}:c1={dark}:{corners}:type=radial:speed=0.00001")
    end = _chain(graph, start, ("format", "rgb24"), ("buffersink", ""))
    graph.configure()
    frame = end.pull()
    assert isinstance(frame, VideoFrame)  # nosec B101 # noqa: S101  (for the type checker)
    return frame


def _mark() -> VideoFrame:
    """Draw the watermark as a small picture with transparency."""
    frame = VideoFrame(len(MARK[0]), len(MARK), "rgba")
    plane = frame.planes[0]
    colours = {"#": b"\xff\xff\xff\xd0", " ": b"\x00\x00\x00\x90"}
    rows = (b"".join(colours[pixel] for pixel in row).ljust(plane.line_size, b"\0") for row in MARK)
    plane.update(b"".join(rows))
    return frame


def _stamped(graph: Graph, video: FilterContext, mark: FilterContext, width: int) -> FilterContext:
    """Return `video` with the watermark over every frame."""
    large = _chain(graph, mark, ("scale", f"w={int(width * MARK_SHARE)}:h=-1:flags=neighbor"), ("format", "yuva444p"))
    over = graph.add("overlay", "x=W-w-W/40:y=H-h-W/40:format=yuv444:eof_action=repeat")
    video.link_to(over, 0, 0)
    large.link_to(over, 0, 1)
    return over


def _pull(end: FilterContext, total: int) -> Iterator[VideoFrame]:
    for number in range(total):
        try:
            frame = end.pull()
        except av.EOFError:
            return
        assert isinstance(frame, VideoFrame)  # nosec B101 # noqa: S101  (for the type checker)
        frame.pts, frame.time_base = number, Fraction(1, FPS)
        yield frame


def _encode(frames: Iterator[VideoFrame], width: int, height: int, total: int) -> bytes:
    """Encode H.264 in MP4.

    ``moov_size`` reserves space for the index at the start: it needs less than 40 bytes a frame.
    """
    file = io.BytesIO()
    with av.open(file, "w", format="mp4", options={"moov_size": str(8192 + 40 * total)}) as out:
        stream = out.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "crf": "23", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, FPS)
        stream.codec_context.gop_size = 2 * FPS
        stream.codec_context.color_range, stream.codec_context.colorspace = 1, 1  # limited range, BT.709
        for frame in frames:
            frame.pict_type = 0
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return file.getvalue()
