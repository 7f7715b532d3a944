# SPDX-License-Identifier: GPL-2.0-or-later
"""A client of the NBD protocol that sends raw bytes and believes nothing.

Written from the specification (NetworkBlockDevice/nbd, doc/proto.md, with extended headers), not from
any server. Whatever a server sends that the specification forbids raises Violation: unknown bits,
wrong magic, lengths, cookies and offsets, chunks that overlap or lie outside, replies that no request
waits for, padding that is not zero, texts that are not UTF-8. Rules with SHOULD are held as strictly
where a server has no reason to do otherwise.

    h = Handshake(socket)          options: h.option() is raw, the others ask and check
    t = h.go('name')               transmission: t.read(), t.write() ... raise Failure on errors;
                                   t.submit() and t.wait() for several requests in flight
"""
import os
import select
import socket
import struct

# Seconds of silence after which a server counts as hanging.
PATIENCE = float(os.environ.get('NBD_PATIENCE', 60))

NBDMAGIC, IHAVEOPT, REPLY_MAGIC = b'NBDMAGIC', b'IHAVEOPT', 0x3e889045565a9
FIXED, NO_ZEROES = 1, 2  # handshake flags, of both sides
STRING_MAX = 4096

EXPORT_NAME, ABORT, LIST, STARTTLS, INFO, GO = 1, 2, 3, 5, 6, 7
STRUCTURED_REPLY, LIST_META_CONTEXT, SET_META_CONTEXT, EXTENDED_HEADERS = 8, 9, 10, 11

REP_ACK, REP_SERVER, REP_INFO, REP_META_CONTEXT, REP_ERROR = 1, 2, 3, 4, 1 << 31
ERR_UNSUP, ERR_POLICY, ERR_INVALID, ERR_PLATFORM, ERR_TLS_REQD, ERR_UNKNOWN, ERR_SHUTDOWN, \
    ERR_BLOCK_SIZE_REQD, ERR_TOO_BIG, ERR_EXT_HEADER_REQD = (REP_ERROR + n for n in range(1, 11))
# What may precede the final reply of an option.
INTERMEDIATE = {LIST: REP_SERVER, INFO: REP_INFO, GO: REP_INFO, LIST_META_CONTEXT: REP_META_CONTEXT,
                SET_META_CONTEXT: REP_META_CONTEXT}

INFO_EXPORT, INFO_NAME, INFO_DESCRIPTION, INFO_BLOCK_SIZE = range(4)

HAS_FLAGS, READ_ONLY, SEND_FLUSH, SEND_FUA, ROTATIONAL, SEND_TRIM, SEND_WRITE_ZEROES, SEND_DF, \
    CAN_MULTI_CONN, SEND_RESIZE, SEND_CACHE, SEND_FAST_ZERO, STATUS_PAYLOAD = (1 << n for n in range(13))
KNOWN_FLAGS = (1 << 13) - 1 & ~SEND_RESIZE

READ, WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS = range(8)
FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO, PAYLOAD_LEN = (1 << n for n in range(6))
REQUEST_MAGIC, EXT_REQUEST_MAGIC = 0x25609513, 0x21e41c71
SIMPLE_MAGIC, CHUNK_MAGIC, EXT_CHUNK_MAGIC = 0x67446698, 0x668e33ef, 0x6e8a278c
DONE = 1
CHUNK_NONE, CHUNK_DATA, CHUNK_HOLE, CHUNK_STATUS, CHUNK_STATUS_EXT = 0, 1, 2, 5, 6
CHUNK_ERROR, CHUNK_ERROR_OFFSET = 0x8001, 0x8002

EPERM, EIO, ENOMEM, EINVAL, ENOSPC, EOVERFLOW, ENOTSUP, ESHUTDOWN = 1, 5, 12, 22, 28, 75, 95, 108
STATE_HOLE, STATE_ZERO, STATE_DIRTY = 1, 2, 1
PAYLOAD_MAX = 1 << 25  # that every client may ask for


class Violation(Exception):
    """The server did what the specification does not allow."""


class Closed(Exception):
    """The server ended the connection."""


class Refused(Exception):
    """An option ended with an error."""

    def __init__(self, kind, text):
        super().__init__(f'option refused: error {kind - REP_ERROR} {text}')
        self.kind, self.text = kind, text


class Failure(Exception):
    """A request ended with an error."""

    def __init__(self, error, text):
        super().__init__(f'request failed: error {error} {text}')
        self.error, self.text = error, text


def check(good, what):
    if not good:
        raise Violation(what)


def text_of(data, what):
    """A string as the specification wants strings."""
    check(len(data) <= STRING_MAX, f'{what} of {len(data)} bytes')
    check(b'\0' not in data, f'{what} with NUL: {data[:80]}')
    try:
        return data.decode('utf-8')
    except UnicodeDecodeError:
        raise Violation(f'{what} is not UTF-8: {data[:80]}') from None


def string(text):
    """A string behind its length."""
    data = text if isinstance(text, bytes) else text.encode()
    return struct.pack('>I', len(data)) + data


def option_bytes(number, data=b'', length=None):
    return struct.pack('>8sII', IHAVEOPT, number, len(data) if length is None else length) + data


def info_bytes(name='', kinds=()):
    """The data of INFO and GO."""
    return string(name) + struct.pack(f'>H{len(kinds)}H', len(kinds), *kinds)


def contexts_bytes(name='', queries=()):
    """The data of LIST_META_CONTEXT and SET_META_CONTEXT."""
    return string(name) + struct.pack('>I', len(queries)) + b''.join(string(q) for q in queries)


def request_bytes(extended, command, cookie=1, offset=0, length=0, flags=0):
    if extended:
        return struct.pack('>IHHQQQ', EXT_REQUEST_MAGIC, flags, command, cookie, offset, length)
    return struct.pack('>IHHQQI', REQUEST_MAGIC, flags, command, cookie, offset, length)


class Wire:
    """Bytes to and from the server."""

    def __init__(self, sock):
        sock.setblocking(False)
        self.sock, self.buffer = sock, bytearray()

    def send(self, *parts):
        """Takes what comes meanwhile: a server may stop reading until its replies are read."""
        data = memoryview(b''.join(parts))
        while data:
            try:
                data = data[self.sock.send(data):]
            except BlockingIOError:
                if self.ready(select.POLLIN | select.POLLOUT) & select.POLLIN and not self.more():
                    raise Closed('while sending') from None
            except (BrokenPipeError, ConnectionResetError):
                raise Closed('while sending') from None

    def ready(self, events):
        poll = select.poll()
        poll.register(self.sock, events)
        found = poll.poll(PATIENCE * 1000)
        check(found, f'the server does nothing for {PATIENCE} s')
        return found[0][1]

    def more(self):
        """Whether something came; False at the end."""
        while True:
            try:
                data = self.sock.recv(1 << 18)
            except BlockingIOError:
                self.ready(select.POLLIN)
                continue
            except ConnectionResetError:
                return False
            self.buffer += data
            return bool(data)

    def receive(self, n):
        while len(self.buffer) < n:
            if not self.more():
                raise Closed(f'after {len(self.buffer)} of {n} bytes')
        data = bytes(self.buffer[:n])
        del self.buffer[:n]
        return data

    def unpack(self, fmt):
        return struct.unpack(fmt, self.receive(struct.calcsize(fmt)))

    def expect_end(self):
        """The server closes, and has nothing more to say."""
        check(not self.buffer and not self.more(), f'more bytes: {bytes(self.buffer[:64]).hex()}')

    def close(self):
        self.sock.close()


class Info:
    """What INFO and GO tell about an export."""

    def __init__(self, payloads, h):
        self.size = self.flags = self.name = self.description = self.block = None
        seen = set()
        for p in payloads:
            check(len(p) >= 2, 'REP_INFO without a type')
            kind = struct.unpack('>H', p[:2])[0]
            check(kind not in seen, f'information {kind} twice')
            seen.add(kind)
            self.take(kind, p[2:])
        if self.size is not None:
            check_flags(self.flags, h)
        if self.block:
            check_block_sizes(self.block, self.size)

    def take(self, kind, data):
        if kind == INFO_EXPORT:
            check(len(data) == 10, f'INFO_EXPORT of {len(data)} bytes')
            self.size, self.flags = struct.unpack('>QH', data)
        elif kind == INFO_NAME:
            self.name = text_of(data, 'name')
        elif kind == INFO_DESCRIPTION:
            self.description = text_of(data, 'description')
        else:
            check(kind == INFO_BLOCK_SIZE, f'unknown information {kind}')
            check(len(data) == 12, f'INFO_BLOCK_SIZE of {len(data)} bytes')
            self.block = struct.unpack('>III', data)


def check_flags(flags, h):
    """Transmission flags that go together with what was negotiated."""
    check(flags & HAS_FLAGS, f'flags {flags:#x} without HAS_FLAGS')
    check(not flags & ~KNOWN_FLAGS, f'unknown flags {flags:#x}')
    check(h.structured or h.extended or not flags & SEND_DF, 'SEND_DF without structured replies')
    check(flags & SEND_WRITE_ZEROES or not flags & SEND_FAST_ZERO, 'FAST_ZERO without WRITE_ZEROES')
    check(h.extended and h.contexts or not flags & STATUS_PAYLOAD,
          'BLOCK_STATUS_PAYLOAD without extended headers or without contexts')


def check_block_sizes(block, size):
    least, preferred, most = block
    check(least & least - 1 == 0 and 1 <= least <= 1 << 16, f'minimum block size {least}')
    check(preferred & preferred - 1 == 0 and preferred >= max(least, 512),
          f'preferred block size {preferred}')
    check(most == 0xffffffff or most % least == 0, f'maximum block size {most}')
    check(size is None or most >= min(preferred, size), f'maximum block size {most} too small')


class Handshake:
    """The option phase."""

    def __init__(self, sock, flags=FIXED | NO_ZEROES):
        self.wire = Wire(sock)
        self.structured = self.extended = False
        self.contexts = {}  # id -> name, of the last SET_META_CONTEXT
        self.zeroes = not flags & NO_ZEROES
        magic, options, self.flags = self.wire.unpack('>8s8sH')
        check((magic, options) == (NBDMAGIC, IHAVEOPT), f'greeting {magic} {options}')
        check(self.flags & FIXED, 'no fixed newstyle')
        check(not self.flags & ~(FIXED | NO_ZEROES), f'unknown handshake flags {self.flags:#x}')
        check(self.zeroes or self.flags & NO_ZEROES, 'no NO_ZEROES')
        self.wire.send(struct.pack('>I', flags))

    # ---- raw ----

    def option(self, number, data=b'', length=None):
        """All replies to an option, as (type, payload); the last one is ACK or an error."""
        self.wire.send(option_bytes(number, data, length))
        return self.replies(number)

    def replies(self, number):
        found = []
        while True:
            magic, option, kind, length = self.wire.unpack('>QIII')
            check(magic == REPLY_MAGIC, f'magic {magic:#x} of an option reply')
            check(option == number, f'reply to option {option} where {number} was asked')
            check(length <= 2 * STRING_MAX + 8, f'option reply of {length} bytes')
            payload = self.wire.receive(length)
            found.append((kind, payload))
            if kind & REP_ERROR:
                check(ERR_UNSUP <= kind <= ERR_EXT_HEADER_REQD, f'unknown error {kind:#x}')
                text_of(payload, 'error message')
                return found
            if kind == REP_ACK:
                check(not payload, 'ACK with data')
                return found
            check(kind == INTERMEDIATE.get(number), f'reply {kind} to option {number}')

    def ask(self, number, data=b''):
        """The payloads before the ACK."""
        *found, (kind, payload) = self.option(number, data)
        if kind != REP_ACK:
            raise Refused(kind, payload.decode())
        return [p for _, p in found]

    # ---- each option ----

    def list(self):
        """[(name, description)]"""
        found = []
        for p in self.ask(LIST):
            check(len(p) >= 4, 'REP_SERVER without a name')
            n = struct.unpack('>I', p[:4])[0]
            check(n <= len(p) - 4, 'REP_SERVER: a name longer than the reply')
            found.append((text_of(p[4:4 + n], 'name'), text_of(p[4 + n:], 'description')))
        return found

    def structured_reply(self):
        check(self.ask(STRUCTURED_REPLY) == [], 'data')
        self.structured = True
        return self

    def extended_headers(self):
        check(self.ask(EXTENDED_HEADERS) == [], 'data')
        self.extended = True
        return self

    def mode(self, mode):
        """How replies look: simple, structured or extended."""
        if mode == 'structured':
            self.structured_reply()
        elif mode == 'extended':
            self.extended_headers()
        return self

    def list_contexts(self, name='', queries=()):
        found = []
        for p in self.ask(LIST_META_CONTEXT, contexts_bytes(name, queries)):
            check(p[:4] == bytes(4), 'a context ID other than 0 in a list')
            found.append(self.context_name(p))
        check(len(set(found)) == len(found), f'a context twice: {found}')
        return found

    def set_contexts(self, name='', queries=()):
        """{name: id}"""
        self.contexts = {}
        found = {}
        for p in self.ask(SET_META_CONTEXT, contexts_bytes(name, queries)):
            context, number = self.context_name(p), struct.unpack('>I', p[:4])[0]
            check(number not in found.values() and context not in found, f'context {context} twice')
            found[context] = number
        self.contexts = {n: c for c, n in found.items()}
        return found

    @staticmethod
    def context_name(payload):
        check(len(payload) > 4, 'REP_META_CONTEXT without a name')
        name = text_of(payload[4:], 'context')
        space, colon, _ = name.partition(':')
        check(colon and space in ('base', 'qemu'), f'namespace of {name}')
        return name

    def info(self, name='', kinds=(), option=INFO):
        payloads = self.ask(option, info_bytes(name, kinds))
        info = Info(payloads, self)
        check(info.size is not None, 'no INFO_EXPORT')
        return info

    def go(self, name='', kinds=(INFO_BLOCK_SIZE,)):
        return Transmission(self, self.info(name, kinds, GO))

    def export_name(self, name=''):
        check(not self.extended, 'not with extended headers')
        self.wire.send(option_bytes(EXPORT_NAME, name.encode()))
        info = Info([], self)
        info.size, info.flags = self.wire.unpack('>QH')
        check_flags(info.flags, self)
        if self.zeroes:
            padding = self.wire.receive(124)
            check(padding == bytes(124), f'padding {padding.hex()}')
        return Transmission(self, info)

    def abort(self, data=b''):
        found = self.option(ABORT, data)
        check(found == [(REP_ACK, b'')], f'ABORT is answered by {found}')
        self.wire.expect_end()

    def close(self):
        self.wire.close()


def allowed_error(request, error):
    if error == EOVERFLOW:  # of READ with DF; and of any request above the maximum
        return request.flags & DF or request.length >= PAYLOAD_MAX
    if error == ENOTSUP:
        return request.command == WRITE_ZEROES and request.flags & FAST_ZERO
    return error in (EPERM, EIO, ENOMEM, EINVAL, ENOSPC, ESHUTDOWN)


class Request:
    """A request and what was answered to it so far."""

    def __init__(self, t, command, offset, length, flags):
        self.t, self.command, self.offset, self.length, self.flags = t, command, offset, length, flags
        self.wanted = dict(t.contexts)   # contexts that a BLOCK_STATUS asks for
        self.data = b''
        self.chunks = []    # (CHUNK_DATA or CHUNK_HOLE, offset, length)
        self.spans = []     # what they cover, sorted and joined
        self.status = {}    # context -> [(length, flags)]
        self.errors = []    # (error, text, offset or None)
        self.done = False

    @property
    def error(self):
        return self.errors[0][0] if self.errors else 0

    def finish(self):
        self.done = True
        if self.errors:
            return
        if self.command == READ and self.length:
            check(self.spans == [[self.offset, self.offset + self.length]],
                  f'a read of {self.length} bytes at {self.offset} got {self.chunks}')
        if self.command == BLOCK_STATUS:
            check(set(self.status) == set(self.wanted.values()),
                  f'status of {sorted(self.status)} where {sorted(self.wanted.values())} was asked')

    # ---- content ----

    def cover(self, kind, offset, length):
        check(self.command == READ, f'content for command {self.command}')
        check(self.offset <= offset and offset + length <= self.offset + self.length,
              f'content at {offset}+{length} outside of {self.offset}+{self.length}')
        check(not self.flags & DF or not self.chunks, 'more than one content chunk with DF')
        check(all(offset + length <= a or offset >= b for a, b in self.spans),
              f'content at {offset}+{length} overlaps {self.chunks}')
        check(all(at is None or not offset <= at < offset + length for _, _, at in self.errors),
              f'content at {offset}+{length} after an error there')
        self.chunks.append((kind, offset, length))
        self.spans.append([offset, offset + length])
        self.spans.sort()
        joined = [self.spans[0]]
        for a, b in self.spans[1:]:
            if a == joined[-1][1]:
                joined[-1][1] = b
            else:
                joined.append([a, b])
        self.spans = joined

    def put(self, offset, data):
        """Most reads are one chunk: it is taken as it is."""
        if len(data) == self.length:
            self.data = data
            return
        if not self.data:
            self.data = bytearray(self.length)
        at = offset - self.offset
        self.data[at:at + len(data)] = data

    def take_simple(self, error):
        if error:
            self.take_error_code(error, '', None)
        elif self.command == READ:
            check(not (self.t.structured or self.t.extended), 'a simple reply to READ')
            data = self.t.wire.receive(self.length)
            if data:
                self.cover(CHUNK_DATA, self.offset, self.length)
            self.data = data
        else:
            check(self.command != BLOCK_STATUS, 'a simple reply to BLOCK_STATUS')
        self.finish()

    def take_none(self, payload, done):
        check(not payload and done, 'CHUNK_NONE with payload or without DONE')

    def take_data(self, payload, _):
        check(len(payload) >= 9, f'CHUNK_DATA of {len(payload)} bytes')
        offset = struct.unpack('>Q', payload[:8])[0]
        self.cover(CHUNK_DATA, offset, len(payload) - 8)
        self.put(offset, payload[8:])

    def take_hole(self, payload, _):
        check(len(payload) == 12, f'CHUNK_HOLE of {len(payload)} bytes')
        offset, length = struct.unpack('>QI', payload)
        check(length, 'an empty hole')
        self.cover(CHUNK_HOLE, offset, length)
        self.put(offset, bytes(length))

    # ---- status ----

    def take_status(self, payload, _):
        n = len(payload) - 4
        check(n > 0 and n % 8 == 0, f'CHUNK_STATUS of {len(payload)} bytes')
        self.take_extents(struct.unpack('>I', payload[:4])[0], list(struct.iter_unpack('>II', payload[4:])))

    def take_status_ext(self, payload, _):
        n = len(payload) - 8
        check(self.t.extended, 'CHUNK_STATUS_EXT without extended headers')
        check(n > 0 and n % 16 == 0, f'CHUNK_STATUS_EXT of {len(payload)} bytes')
        context, count = struct.unpack('>II', payload[:8])
        check(count in (0, n // 16), f'CHUNK_STATUS_EXT counts {count} descriptors of {n // 16}')
        self.take_extents(context, list(struct.iter_unpack('>QQ', payload[8:])))

    def take_extents(self, number, extents):
        check(self.command == BLOCK_STATUS, f'status for command {self.command}')
        check(number in self.wanted, f'status of context {number}')
        name = self.wanted[number]
        check(name not in self.status, f'two chunks of {name}')
        check(len(extents) <= 1 << 20, f'{len(extents)} descriptors')
        check(all(n for n, _ in extents), f'an empty extent: {extents}')
        total, least = sum(n for n, _ in extents), self.t.least
        if self.flags & REQ_ONE:
            check(len(extents) == 1 and total <= self.length, f'REQ_ONE, and {extents}')
        check(total - extents[-1][0] < self.length, f'extents beyond the request: {extents}')
        check(self.offset + total <= self.t.size, f'extents beyond the export: {extents}')
        check(all(n % least == 0 for n, _ in extents), f'extents that are no blocks: {extents}')
        check(all(a[1] != b[1] for a, b in zip(extents, extents[1:])), f'equal neighbours: {extents}')
        known = {'base:allocation': STATE_HOLE | STATE_ZERO, 'qemu:allocation-depth': 0xffffffff}
        check(all(not f & ~known.get(name, STATE_DIRTY) for _, f in extents), f'flags: {extents}')
        self.status[name] = extents

    # ---- errors ----

    def take_error_code(self, error, text, offset):
        check(error, 'an error chunk without an error')
        check(allowed_error(self, error), f'error {error} for command {self.command} {self.flags:#x}')
        self.errors.append((error, text, offset))

    def take_error(self, payload, _):
        check(len(payload) >= 6, f'CHUNK_ERROR of {len(payload)} bytes')
        error, n = struct.unpack('>IH', payload[:6])
        check(n == len(payload) - 6, f'a message of {n} in an error of {len(payload)} bytes')
        check(all(at is not None for _, _, at in self.errors), 'two errors without offset')
        self.take_error_code(error, text_of(payload[6:], 'error message'), None)

    def take_error_offset(self, payload, _):
        check(len(payload) >= 14, f'CHUNK_ERROR_OFFSET of {len(payload)} bytes')
        check(self.command not in (FLUSH, DISC), 'an error with an offset')
        error, n = struct.unpack('>IH', payload[:6])
        check(n == len(payload) - 14, f'a message of {n} in an error of {len(payload)} bytes')
        offset = struct.unpack('>Q', payload[-8:])[0]
        check(self.offset <= offset < self.offset + self.length, f'an error at {offset}, outside')
        check(all(at != offset for _, _, at in self.errors), f'two errors at {offset}')
        self.take_error_code(error, text_of(payload[6:-8], 'error message'), offset)

    KINDS = {CHUNK_NONE: take_none, CHUNK_DATA: take_data, CHUNK_HOLE: take_hole,
             CHUNK_STATUS: take_status, CHUNK_STATUS_EXT: take_status_ext, CHUNK_ERROR: take_error,
             CHUNK_ERROR_OFFSET: take_error_offset}

    def take_chunk(self, kind, payload, done):
        check(kind in self.KINDS, f'unknown chunk type {kind:#x}')
        self.KINDS[kind](self, payload, done)
        if done:
            self.finish()


class Transmission:
    """The transmission phase."""

    def __init__(self, h, info):
        self.wire, self.info = h.wire, info
        self.size, self.flags = info.size, info.flags
        self.least = info.block[0] if info.block else 1
        self.structured, self.extended, self.contexts = h.structured, h.extended, h.contexts
        self.cookie = 0x0102030405060700  # every byte counts
        self.pending = {}

    # ---- several in flight ----

    def submit(self, command, offset=0, length=0, flags=0, payload=b''):
        request = Request(self, command, offset, length, flags)
        self.cookie += 1
        self.pending[self.cookie] = request
        if command == WRITE and self.extended:
            flags |= PAYLOAD_LEN
        self.wire.send(request_bytes(self.extended, command, self.cookie, offset, length, flags), payload)
        return request

    def submit_filtered(self, offset, length, ids, flags=0, effect=None):
        """BLOCK_STATUS of some contexts only."""
        payload = struct.pack(f'>Q{len(ids)}I', length, *ids)
        request = self.submit(BLOCK_STATUS, offset, len(payload) if effect is None else effect,
                              flags | PAYLOAD_LEN, payload)
        request.length = length
        request.wanted = {n: c for n, c in self.contexts.items() if n in ids}
        return request

    def waiting(self, cookie):
        check(cookie in self.pending, f'a reply to cookie {cookie:#x}')
        return self.pending[cookie]

    def receive_one(self):
        """Takes one message."""
        magic = self.wire.unpack('>I')[0]
        if magic == SIMPLE_MAGIC:
            check(not self.extended, 'a simple reply with extended headers')
            error, cookie = self.wire.unpack('>IQ')
            self.waiting(cookie).take_simple(error)
            done = True
        elif magic == CHUNK_MAGIC:
            check(self.structured and not self.extended, 'a structured reply was not negotiated')
            flags, kind, cookie, length = self.wire.unpack('>HHQI')
            done = self.take_chunk(flags, kind, cookie, length)
        elif magic == EXT_CHUNK_MAGIC:
            check(self.extended, 'an extended reply was not negotiated')
            flags, kind, cookie, offset, length = self.wire.unpack('>HHQQQ')
            check(offset == self.waiting(cookie).offset, f'offset {offset:#x} of an extended reply')
            done = self.take_chunk(flags, kind, cookie, length)
        else:
            raise Violation(f'magic {magic:#x} of a reply')
        if done:
            del self.pending[cookie]

    def take_chunk(self, flags, kind, cookie, length):
        check(not flags & ~DONE, f'unknown reply flags {flags:#x}')
        request = self.waiting(cookie)
        check(length <= max(request.length, 1 << 24) + 64, f'a chunk of {length} bytes')
        request.take_chunk(kind, self.wire.receive(length), flags & DONE)
        return flags & DONE

    def wait(self, request):
        while not request.done:
            self.receive_one()
        return request

    def wait_all(self):
        while self.pending:
            self.receive_one()

    def run(self, command, offset=0, length=0, flags=0, payload=b''):
        return self.succeed(self.submit(command, offset, length, flags, payload))

    def succeed(self, request):
        self.wait(request)
        if request.errors:
            raise Failure(*request.errors[0][:2])
        return request

    # ---- one at a time ----

    def read(self, offset, length, flags=0):
        return bytes(self.run(READ, offset, length, flags).data)

    def write(self, offset, data, flags=0):
        self.run(WRITE, offset, len(data), flags, data)

    def flush(self):
        self.run(FLUSH)

    def trim(self, offset, length, flags=0):
        self.run(TRIM, offset, length, flags)

    def cache(self, offset, length, flags=0):
        self.run(CACHE, offset, length, flags)

    def zero(self, offset, length, flags=0):
        self.run(WRITE_ZEROES, offset, length, flags)

    def status(self, offset, length, flags=0):
        """{context: [(length, flags)]}"""
        return self.run(BLOCK_STATUS, offset, length, flags).status

    def whole_status(self, context, offset=0, length=None):
        """All extents of a range, joined and cut, by as many requests as it takes."""
        end = self.size if length is None else offset + length
        found = []
        while offset < end:
            for n, flags in self.status(offset, min(end - offset, 1 << 31))[context]:
                n = min(n, end - offset)
                if n and found and found[-1][1] == flags:
                    found[-1] = (found[-1][0] + n, flags)
                elif n:
                    found.append((n, flags))
                offset += n
        return found

    def disconnect(self):
        """Says good-bye: what is in flight is answered first, then nothing more comes."""
        self.wire.send(request_bytes(self.extended, DISC, 0xd15c))
        self.wait_all()
        self.wire.expect_end()
        self.close()

    def close(self):
        self.wire.close()


def pair():
    """A Unix socket pair with room for what a test sends at once."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
