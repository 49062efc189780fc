"""The server's side of a WebSocket (RFC 6455): text alone, as OpenEnv's clients send it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from io import BufferedIOBase

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CONTINUED, _TEXT, _CLOSE, _PING, _PONG = 0, 1, 8, 9, 10


class Broken(Exception):
    """The other side left, or sent what is no message of this protocol."""


def accept_key(headers: Mapping[str, str]) -> str | None:
    """The answer to a handshake; None where it is none."""
    key = headers.get("Sec-WebSocket-Key", "")
    if headers.get("Upgrade", "").lower() != "websocket" or not key:
        return None
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest()).decode()


class WebSocket:
    """One connection after its handshake. Raises `Broken`."""

    def __init__(self, reader: BufferedIOBase, writer: BufferedIOBase, max_bytes: int) -> None:
        self._reader, self._writer, self._max = reader, writer, max_bytes

    def receive(self) -> str | None:
        """The next text; None when the other side closes."""
        parts = b""
        while True:
            final, kind, data = self._frame()
            if kind == _CLOSE:
                self._send(_CLOSE, data[:2])
                return None
            if kind == _PING:
                self._send(_PONG, data)
            elif kind in (_TEXT, _CONTINUED):
                parts += data
                if len(parts) > self._max:
                    raise Broken(f"a message of more than {self._max} bytes")
                if final:
                    try:
                        return parts.decode()
                    except UnicodeDecodeError:
                        raise Broken("a message that is not UTF-8") from None
            elif kind != _PONG:
                raise Broken("a message that is no text")

    def send(self, text: str) -> None:
        """One text."""
        self._send(_TEXT, text.encode())

    def _frame(self) -> tuple[bool, int, bytes]:
        first, second = self._read(2)
        size = second & 0x7F
        if size > 125:
            size = int.from_bytes(self._read(2 if size == 126 else 8))
        if not second & 0x80 or size > self._max:
            raise Broken("a frame that is not masked, or too long")
        mask = self._read(4)
        data = bytes(byte ^ mask[i % 4] for i, byte in enumerate(self._read(size)))
        return bool(first & 0x80), first & 0x0F, data

    def _read(self, size: int) -> bytes:
        try:
            data = self._reader.read(size)
        except OSError as error:
            raise Broken(str(error)) from None
        if len(data) < size:
            raise Broken("the other side is gone")
        return data

    def _send(self, kind: int, data: bytes) -> None:
        size = len(data)
        if size < 126:
            head = bytes([0x80 | kind, size])
        elif size < 1 << 16:
            head = bytes([0x80 | kind, 126]) + size.to_bytes(2)
        else:
            head = bytes([0x80 | kind, 127]) + size.to_bytes(8)
        try:
            self._writer.write(head + data)
            self._writer.flush()
        except OSError as error:
            raise Broken(str(error)) from None
