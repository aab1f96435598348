"""Whether a stream of bytes is a whole MP4: a walk over its top-level boxes, without keeping them."""

_HEADER = 8  # 32-bit size, type
_LONG_HEADER = 16  # size 1 says: a 64-bit size follows the type
_SMALLEST_FTYP = 16  # header, major brand, minor version


class BadVideo(Exception):
    """`reason`, which is all of the text: `not_a_video` (it does not begin as an MP4, or a box makes no sense) or
    `truncated` (a beginning of an MP4: a box reaches past the end, or the index or the pictures never came)."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class BoxWalk:
    """Feed it the bytes in pieces of any size, then `finish`: what passes has `ftyp` first, `moov` and `mdat`, and
    boxes whose sizes add up to exactly `length` bytes.

    `open_end`: whether a last box of size 0 ("to the end") is accepted. It proves nothing where the end of the file is
    itself only known from the end of a connection.
    """

    def __init__(self, length: int, *, open_end: bool = True) -> None:
        self._length = length
        self._open_end = open_end
        self._position = 0  # bytes fed
        self._box_end = 0  # where the next header begins
        self._header = b""
        self._missing = {b"moov", b"mdat"}

    def feed(self, data: bytes) -> None:
        """Raises BadVideo as soon as it is certain."""
        start = self._position  # offset of data[0] in the file
        self._position += len(data)
        if self._position > self._length:
            raise BadVideo("not_a_video")
        while self._box_end < self._position:
            header_end = self._box_end + self._header_size()
            at = self._box_end + len(self._header) - start
            self._header += data[at : header_end - start]
            if self._position < header_end:
                return
            if len(self._header) == self._header_size():  # not yet, when the first half has asked for the second
                self._take_box()

    def finish(self) -> None:
        """Raises BadVideo unless everything that was fed is one whole MP4."""
        if self._box_end == 0:
            raise BadVideo("not_a_video")
        adds_up = self._position == self._box_end == self._length and not self._header
        if not adds_up or self._missing:
            raise BadVideo("truncated")

    def _header_size(self) -> int:
        return _LONG_HEADER if self._header[:4] == b"\0\0\0\1" else _HEADER

    def _take_box(self) -> None:
        header, self._header = self._header, b""
        kind = header[4:8]
        size = int.from_bytes(header[8:] or header[:4])
        if self._box_end == 0 and (kind != b"ftyp" or 0 < size < _SMALLEST_FTYP):
            raise BadVideo("not_a_video")
        if not all(0x20 <= letter < 0x7F or letter == 0xA9 for letter in kind):
            raise BadVideo("not_a_video")
        if size == 0 and len(header) == _HEADER:
            if not self._open_end:
                raise BadVideo("truncated")
            size = self._length - self._box_end
        if size < len(header):
            raise BadVideo("not_a_video")
        self._missing.discard(kind)
        self._box_end += size
        if self._box_end > self._length:
            raise BadVideo("truncated")
