"""A second parser of what NATS clients send: byte by byte, slow, and sharing nothing with the first.

It says what each line means and nothing of how to do it fast. Events are flat tuples: a kind and its values.
"""

from collections.abc import Generator

Event = tuple[object, ...]

BLANKS = b" \t\r\x0b\x0c"
VERBS = {b"PUB", b"HPUB", b"SUB", b"UNSUB", b"PING", b"PONG", b"CONNECT", b"+OK"}


class BrokenError(Exception):
    pass


class ReferenceParser:
    def __init__(self, max_payload: int, max_control_line: int) -> None:
        self._max_payload = max_payload
        self._max_control_line = max_control_line
        self._events: list[Event] = []
        self._steps = self._run()
        next(self._steps)
        self._broken = False

    def feed(self, data: bytes) -> list[Event]:
        for byte in data:
            if self._broken:
                break
            try:
                self._steps.send(byte)
            except BrokenError as broken:
                self._events.append(("error", str(broken)))
                self._broken = True
        events, self._events = self._events, []
        return events

    def _run(self) -> Generator[None, int, None]:
        while True:
            line = bytearray()
            while True:
                byte = yield
                if byte == ord("\n"):
                    break
                line.append(byte)
                self._check_line_so_far(bytes(line))
            words = self._words(bytes(line))
            verb = words[0].upper()
            if verb not in VERBS:
                raise BrokenError("Unknown Protocol Operation")
            yield from self._line(verb, words, bytes(line))

    def _check_line_so_far(self, line: bytes) -> None:
        verb = bytearray()
        for byte in line:
            if byte in BLANKS:
                break
            verb.append(byte)
        name = bytes(verb).upper()
        if len(name) < len(line):
            known = name in VERBS
        else:
            known = any(candidate[: len(name)] == name for candidate in VERBS)
        if not known:
            raise BrokenError("Unknown Protocol Operation")
        if len(line) > self._max_control_line:
            raise BrokenError("maximum control line exceeded")

    def _words(self, line: bytes) -> list[bytes]:
        words = [bytearray()]
        for byte in line:
            if byte in BLANKS:
                words.append(bytearray())
            else:
                words[-1].append(byte)
        # The verb stands at the very beginning of the line, whatever blanks are elsewhere.
        return [bytes(words[0]), *[bytes(word) for word in words[1:] if word]]

    def _line(self, verb: bytes, words: list[bytes], line: bytes) -> Generator[None, int, None]:
        arguments = words[1:]
        if verb == b"PING":
            self._events.append(("ping",))
        elif verb == b"PONG":
            self._events.append(("pong",))
        elif verb == b"+OK":
            pass
        elif verb == b"SUB":
            if len(arguments) == 2:
                self._events.append(("subscribe", arguments[0], None, arguments[1]))
            elif len(arguments) == 3:
                self._events.append(("subscribe", *arguments))
            else:
                raise BrokenError("Parser Error")
        elif verb == b"UNSUB":
            if len(arguments) not in (1, 2):
                raise BrokenError("Parser Error")
            text = arguments[1].decode("latin-1") if len(arguments) == 2 else "0"
            is_number = all(character in "0123456789" for character in text) and len(text) <= 18
            self._events.append(("unsubscribe", arguments[0], int(text) if is_number else 0))
        elif verb == b"CONNECT":
            if not arguments:
                raise BrokenError("Parser Error")
            self._events.append(("connect", line[len("CONNECT") :].strip(BLANKS)))
        else:
            yield from self._message(verb == b"HPUB", arguments)

    def _message(self, has_headers: bool, arguments: list[bytes]) -> Generator[None, int, None]:
        numbers = 2 if has_headers else 1
        if len(arguments) not in (1 + numbers, 2 + numbers):
            raise BrokenError("Parser Error")
        subject = arguments[0]
        reply = arguments[1] if len(arguments) == 2 + numbers else None
        lengths = [self._length(word) for word in arguments[-numbers:]]
        if lengths[0] > lengths[-1]:
            raise BrokenError("Parser Error")
        if lengths[-1] > self._max_payload:
            raise BrokenError("Maximum Payload Violation")
        body = bytearray()
        while len(body) < lengths[-1]:
            body.append((yield))
        for expected in b"\r\n":
            if (yield) != expected:
                raise BrokenError("Unknown Protocol Operation")
        header_length = lengths[0] if has_headers else 0
        headers = bytes(body[:header_length]) if header_length else None
        kind = "request" if subject[:8] == b"$mq9.AI." else "publish"
        self._events.append((kind, subject, reply, headers, bytes(body[header_length:])))

    def _length(self, word: bytes) -> int:
        text = word.decode("latin-1")
        if not 1 <= len(text) <= 10 or any(character not in "0123456789" for character in text):
            raise BrokenError("Parser Error")
        return int(text)
