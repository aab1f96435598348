"""Check that a stream of bytes is a complete MP4: walk its top-level boxes without storing them."""

_HEADER = 8  # 32-bit size, type
_LONG_HEADER = 16  # size 1 means: a 64-bit size follows the type
_SMALLEST_FTYP = 16  # header, major brand, minor version
_CONTAINER_BOXES = {b"trak", b"mdia"}  # a `moov` names the type of a track in trak/mdia/hdlr
_TO_HANDLER = 12  # bytes of a `hdlr` up to and including its handler type: version and flags, pre_defined, handler_type


class InvalidVideoError(Exception):
    """The file is not a complete MP4. `reason`, which is the whole text:

    `not_a_video` (it does not start as an MP4, or a box is malformed) or `truncated` (it starts as an MP4, but a box
    reaches past the end, or index or pictures are missing or empty).
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class BoxWalk:
    """Walk the boxes of an MP4. Feed the bytes in pieces of any size, then call `finish`.

    A file passes if `ftyp` is first, `moov` and `mdat` are not empty, and the sizes of its boxes add up to exactly
    `length` bytes. Zeros may follow as padding.

    `open_end`: whether a last box of size 0 ("to the end") is accepted. Such a box proves nothing if only the end of
    the connection marks the end of the file.
    """

    def __init__(self, length: int, *, open_end: bool = True) -> None:
        self._length = length
        self._open_end = open_end
        self._position = 0  # bytes fed
        self._box_end = 0  # start of the next header
        self._header = b""
        self._missing = {b"moov", b"mdat"}
        self._index: _Index | None = None  # the current `moov`
        self._padded = False  # whether only zeros may follow
        self.has_video_track = False  # whether a `moov` so far names one

    def feed(self, data: bytes) -> None:
        """Walk the next bytes. Raises InvalidVideoError as soon as the file is certainly invalid."""
        start = self._position  # offset of data[0] in the file
        self._position += len(data)
        if self._position > self._length:
            raise InvalidVideoError("not_a_video")
        self._read_index(data, 0, self._box_end - start)
        if self._padded:
            _check_padding(data)
        while self._box_end < self._position:
            header_end = self._box_end + self._header_size()
            at = self._box_end + len(self._header) - start
            self._header += data[at : header_end - start]
            if self._position < header_end:
                return
            if len(self._header) == self._header_size():  # not yet, if the first half announced a second one
                self._take_box()
                if self._padded:
                    _check_padding(data[header_end - start :])
                self._read_index(data, header_end - start, self._box_end - start)

    def finish(self) -> None:
        """Raise InvalidVideoError unless the bytes so far are one complete MP4."""
        if self._box_end == 0:
            raise InvalidVideoError("not_a_video")
        boxes_end = self._box_end
        if not self._header.strip(b"\0"):  # padding shorter than a header, or nothing
            boxes_end += len(self._header)
        if not self._position == boxes_end == self._length or self._missing:
            raise InvalidVideoError("truncated")

    def _read_index(self, data: bytes, begin: int, end: int) -> None:
        """Pass on the part of `data` that lies in a `moov`."""
        if self._index is not None and begin < end:
            self._index.feed(data[begin:end])
            self.has_video_track = self.has_video_track or self._index.has_video_track

    def _header_size(self) -> int:
        return _LONG_HEADER if self._header[:4] == b"\0\0\0\1" else _HEADER

    def _take_box(self) -> None:
        header, self._header = self._header, b""
        kind = header[4:8]
        size = int.from_bytes(header[8:] or header[:4])
        if header == bytes(_HEADER) and not self._missing:
            self._padded, self._box_end = True, self._length
            return
        if self._box_end == 0 and (kind != b"ftyp" or 0 < size < _SMALLEST_FTYP):
            raise InvalidVideoError("not_a_video")
        if not all(0x20 <= letter < 0x7F or letter == 0xA9 for letter in kind):
            raise InvalidVideoError("not_a_video")
        if size == 0 and len(header) == _HEADER:
            if not self._open_end:
                raise InvalidVideoError("truncated")
            size = self._length - self._box_end
        if size < len(header):
            raise InvalidVideoError("not_a_video")
        if size > len(header):
            self._missing.discard(kind)
        self._index = _Index() if kind == b"moov" else None
        self._box_end += size
        if self._box_end > self._length:
            raise InvalidVideoError("truncated")


def _check_padding(data: bytes) -> None:
    if data.strip(b"\0"):
        raise InvalidVideoError("not_a_video")


class _Index:
    """Search the payload of a `moov` for a video track, in pieces of any size and without storing them.

    It enters `trak` and `mdia` and skips every other box (ISO/IEC 14496-12, 8.4.3). A box with an impossible size ends
    the search. A missing track rejects no file, so an index of another form does no harm.
    """

    def __init__(self) -> None:
        self.has_video_track = False
        self._over = False
        self._skip = 0  # bytes to the next header
        self._head = b""

    def feed(self, data: bytes) -> None:
        at = 0
        while at < len(data) and not self._over:
            skipped = min(self._skip, len(data) - at)
            self._skip -= skipped
            at += skipped
            part = data[at : at + self._wanted() - len(self._head)]
            self._head += part
            at += len(part)
            if len(self._head) == self._wanted():
                self._take_box()

    def _wanted(self) -> int:
        header = _LONG_HEADER if self._head[:4] == b"\0\0\0\1" else _HEADER
        return header + (_TO_HANDLER if self._head[4:8] == b"hdlr" else 0)

    def _take_box(self) -> None:
        head, self._head = self._head, b""
        kind, size = head[4:8], int.from_bytes(head[:4])
        if size == 1:
            size = int.from_bytes(head[_HEADER:_LONG_HEADER])
        if kind in _CONTAINER_BOXES:
            size = len(head)  # its first child follows
        if size < len(head):
            self._over = True
            return
        self.has_video_track = kind == b"hdlr" and head.endswith(b"vide")
        self._over = self.has_video_track
        self._skip = size - len(head)
