# SPDX-License-Identifier: GPL-2.0-or-later
# variants: release
"""The strict client itself: a server that lies in each way that it should notice is noticed. (It is
played by this test: bytes that were prepared, whatever is asked.)"""
import os
import struct
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
import nbd_client as nbd
from hostile import run_cases
from nbd_client import Closed, Handshake, Transmission, Violation
from nbd_server import require

GREETING = struct.pack('>8s8sH', nbd.NBDMAGIC, nbd.IHAVEOPT, 3)
FLAGS = nbd.HAS_FLAGS | nbd.SEND_FLUSH | nbd.SEND_FUA
COOKIE = 0x0102030405060701  # of the client's first request
SIZE = 1 << 20
LIARS = []  # not closed: what clients send goes nowhere


def client(data, flags=nbd.FIXED | nbd.NO_ZEROES):
    """A client whose server says this, and then nothing more."""
    ours, theirs = nbd.pair()
    theirs.sendall(GREETING + data)
    h = Handshake(ours, flags)
    theirs.recv(1 << 16)
    theirs.shutdown(1)
    LIARS.append(theirs)
    return h


def reply(option, kind, payload=b'', magic=nbd.REPLY_MAGIC):
    return struct.pack('>QIII', magic, option, kind, len(payload)) + payload


def chunk(kind, payload=b'', flags=nbd.DONE, cookie=COOKIE, magic=nbd.CHUNK_MAGIC):
    return struct.pack('>IHHQI', magic, flags, kind, cookie, len(payload)) + payload


def extended(kind, payload=b'', flags=nbd.DONE, cookie=COOKIE, offset=0):
    return struct.pack('>IHHQQQ', nbd.EXT_CHUNK_MAGIC, flags, kind, cookie, offset, len(payload)) + payload


def simple(error=0, cookie=COOKIE, data=b''):
    return struct.pack('>IIQ', nbd.SIMPLE_MAGIC, error, cookie) + data


def transmission(data, mode='structured', contexts=None, flags=FLAGS, least=1):
    h = client(data)
    h.structured, h.extended = mode == 'structured', mode == 'extended'
    h.contexts = contexts or {}
    info = nbd.Info([], h)
    info.size, info.flags, info.block = SIZE, flags, (least, 4096, 1 << 25)
    return Transmission(h, info)


def noticed(function, *args):
    try:
        result = function(*args)
    except Violation:
        return
    except Closed as e:
        raise AssertionError(f'nothing noticed but the end: {e}') from None
    raise AssertionError(f'nothing noticed: {result}')


def error_chunk(error, text=b'', length=None):
    return struct.pack('>IH', error, len(text) if length is None else length) + text


def data_at(offset, n):
    return struct.pack('>Q', offset) + b'x' * n


def hole_at(offset, n):
    return struct.pack('>QI', offset, n)


def status_of(context, *extents):
    return struct.pack('>I', context) + b''.join(struct.pack('>II', *e) for e in extents)


def status_ext(context, count, *extents):
    return struct.pack('>II', context, count) + b''.join(struct.pack('>QQ', *e) for e in extents)


# ---- what is right is accepted: without this, noticing everything would do ----

def right_replies():
    t = transmission(chunk(1, data_at(0, 256), 0) + chunk(2, hole_at(256, 256)))
    require(t.read(0, 512) == b'x' * 256 + bytes(256), 'read')
    t = transmission(chunk(5, status_of(1, (512, 0), (512, 3)), 0) + chunk(0), contexts={1: 'base:allocation'})
    require(t.status(0, 1024) == {'base:allocation': [(512, 0), (512, 3)]}, 'status')
    t = transmission(extended(6, status_ext(1, 1, (1024, 3))), 'extended', {1: 'base:allocation'})
    require(t.status(0, 1024) == {'base:allocation': [(1024, 3)]}, 'extended status')
    t = transmission(simple(0, data=b'y' * 512), 'simple')
    require(t.read(0, 512) == b'y' * 512, 'simple read')
    require(client(reply(3, 2, nbd.string('a') + b'text') + reply(3, 1)).list() == [('a', 'text')], 'list')
    info = struct.pack('>HQH', 0, SIZE, FLAGS)
    require(client(reply(6, 3, info) + reply(6, 1)).info().size == SIZE, 'info')


# ---- handshake ----

def greetings():
    for data in (b'NBDMAGIX' + GREETING[8:], GREETING[:8] + b'IHAVEOPX' + GREETING[16:],
                 GREETING[:16] + b'\0\x02', GREETING[:16] + b'\0\x01', GREETING[:16] + b'\0\x07'):
        ours, theirs = nbd.pair()
        theirs.sendall(data)
        noticed(Handshake, ours)


def option_replies():
    for data in (reply(3, 1, magic=1), reply(4, 1), reply(3, 1, b'x'), reply(3, 3, b'xx'), reply(3, 99),
                 reply(3, nbd.REP_ERROR + 99), reply(3, nbd.ERR_UNSUP, b'\xff'), reply(3, nbd.ERR_UNSUP, b'\0'),
                 reply(3, nbd.ERR_UNSUP, b'x' * 4097), reply(3, 2, b'x'), reply(3, 2, nbd.string('a')[:-1]),
                 reply(3, 2, nbd.string(b'\xff')), reply(3, 2, nbd.string('a') + b'\xff')):
        noticed(client(data + reply(3, 1)).list)


def abort_with_more():
    noticed(client(reply(2, 1) + b'x').abort)


def export_name_padding():
    head = struct.pack('>QH', SIZE, FLAGS)
    noticed(client(head + bytes(123) + b'x', nbd.FIXED).export_name)
    noticed(client(struct.pack('>QH', SIZE, 0)).export_name)


def informations():
    good = reply(6, 3, struct.pack('>HQH', 0, SIZE, FLAGS))
    bad = [struct.pack('>HQH', 0, SIZE, f) for f in (0, FLAGS | nbd.SEND_DF, FLAGS | 1 << 13, FLAGS | 1 << 9,
                                                       FLAGS | nbd.SEND_FAST_ZERO, FLAGS | nbd.STATUS_PAYLOAD)]
    bad += [b'', b'x', struct.pack('>HQ', 0, SIZE), struct.pack('>H', 99), struct.pack('>H', 1) + b'\xff']
    for data in bad:
        noticed(client(reply(6, 3, data) + reply(6, 1)).info)
    noticed(client(good + good + reply(6, 1)).info)
    noticed(client(reply(6, 1)).info)
    for block in ((0, 4096, 1 << 25), (3, 4096, 1 << 25), (1 << 17, 1 << 17, 1 << 25), (1, 256, 1 << 25),
                  (512, 4096, 1 << 25 | 1), (4096, 512, 1 << 25), (1, 3000, 1 << 25), (1, 4096, 512)):
        noticed(client(good + reply(6, 3, struct.pack('>HIII', 3, *block)) + reply(6, 1)).info)


def contexts():
    good = reply(10, 4, struct.pack('>I', 1) + b'base:allocation')
    for data in (good + good, good + reply(10, 4, struct.pack('>I', 1) + b'qemu:x'),
                 reply(10, 4, struct.pack('>I', 1) + b'nospace'), reply(10, 4, b'xxx'),
                 reply(10, 4, struct.pack('>I', 1) + b'base:\xff')):
        noticed(client(data + reply(10, 1)).set_contexts)
    noticed(client(reply(9, 4, struct.pack('>I', 1) + b'base:allocation') + reply(9, 1)).list_contexts)


# ---- replies ----

def simple_replies():
    for data in (simple(cookie=COOKIE + 1), simple(error=2), simple(error=nbd.EOVERFLOW),
                 simple(error=nbd.ENOTSUP)):
        noticed(transmission(data + bytes(512), 'simple').read, 0, 512)
    noticed(transmission(simple() + bytes(512), 'structured').read, 0, 512)
    noticed(transmission(simple(), 'extended').flush)
    noticed(transmission(simple(), 'structured', {1: 'base:allocation'}).status, 0, 512)
    noticed(transmission(chunk(0), 'simple').flush)
    noticed(transmission(chunk(0), 'extended').flush)
    noticed(transmission(extended(0), 'structured').flush)
    noticed(transmission(b'junk' * 8, 'structured').flush)


def reads():
    whole = data_at(0, 512)
    for data in (chunk(1, whole, cookie=1), chunk(1, whole, 3), chunk(0), chunk(1, data_at(0, 511)),
                 chunk(1, data_at(1, 512)), chunk(1, data_at(0, 513)), chunk(1, data_at(0, 0)),
                 chunk(1, data_at(SIZE, 512)), chunk(1, whole, 0) + chunk(1, data_at(0, 512)),
                 chunk(1, data_at(0, 300), 0) + chunk(2, hole_at(299, 213)), chunk(2, hole_at(0, 0)),
                 chunk(2, hole_at(0, 512) + b'x'), chunk(0, b'x'), chunk(1, whole, 0) + chunk(0, b'', 0),
                 chunk(5, status_of(1, (512, 0))), chunk(99), chunk(1, whole[:8]),
                 chunk(1, data_at(0, 300), 0) + chunk(1, data_at(301, 211))):
        noticed(transmission(data).read, 0, 512)
    noticed(transmission(chunk(1, data_at(0, 256), 0) + chunk(1, data_at(256, 256))).read, 0, 512, nbd.DF)


def a_reply_too_many():
    t = transmission(chunk(1, data_at(0, 512)) + chunk(0))
    t.read(0, 512)
    noticed(t.flush)


def errors():
    for payload in (error_chunk(0), error_chunk(2), error_chunk(22, b'text', 5), error_chunk(22, b'text', 3),
                    error_chunk(22, b'\xff'), error_chunk(22, b'x' * 4097), b'xxxx', error_chunk(75),
                    error_chunk(95)):
        noticed(transmission(chunk(0x8001, payload)).read, 0, 512)
    noticed(transmission(chunk(0x8001, error_chunk(5), 0) + chunk(0x8001, error_chunk(5))).read, 0, 512)
    for offset in (512, SIZE):
        noticed(transmission(chunk(0x8002, error_chunk(5) + struct.pack('>Q', offset))).read, 0, 512)
    noticed(transmission(chunk(0x8002, error_chunk(5) + bytes(8), 0) + chunk(1, data_at(0, 512))).read, 0, 512)
    noticed(transmission(chunk(0x8002, error_chunk(5) + bytes(8))).flush)
    noticed(transmission(chunk(0x8003, error_chunk(5))).flush)


def statuses():
    one = {1: 'base:allocation'}
    for payload in (status_of(1), status_of(1, (512, 0))[:-1], status_of(2, (512, 0)), status_of(1, (0, 0)),
                    status_of(1, (512, 4)), status_of(1, (1024, 0), (512, 3)), status_of(1, (SIZE + 512, 0)),
                    status_of(1, (256, 0), (256, 0))):
        noticed(transmission(chunk(5, payload), contexts=one).status, 0, 1024)
    good = status_of(1, (512, 0))
    noticed(transmission(chunk(5, good, 0) + chunk(5, good), contexts=one).status, 0, 1024)
    noticed(transmission(chunk(0), contexts=one).status, 0, 1024)
    noticed(transmission(chunk(5, good), contexts={**one, 2: 'qemu:allocation-depth'}).status, 0, 1024)
    noticed(transmission(chunk(5, status_of(1, (512, 0), (512, 3))), contexts=one).status, 0, 1024, nbd.REQ_ONE)
    noticed(transmission(chunk(5, status_of(1, (2048, 0))), contexts=one).status, 0, 1024, nbd.REQ_ONE)
    noticed(transmission(chunk(5, status_of(1, (100, 0))), contexts=one, least=512).status, 0, 1024)
    noticed(transmission(chunk(6, status_ext(1, 1, (512, 0))), contexts=one).status, 0, 1024)
    for payload in (status_ext(1, 2, (512, 0)), status_ext(1, 0), status_ext(1, 1, (512, 1 << 32)),
                    status_ext(1, 1, (512, 0)) + bytes(8)):
        noticed(transmission(extended(6, payload), 'extended', one).status, 0, 1024)


def extended_offsets():
    noticed(transmission(extended(0, offset=512), 'extended').flush)
    noticed(transmission(extended(1, data_at(512, 512), offset=0), 'extended').read, 512, 512)


def more_after_good_bye():
    noticed(transmission(b'x').disconnect)


run_cases([greetings, option_replies, abort_with_more, export_name_padding, informations, contexts,
           simple_replies, reads, a_reply_too_many, errors, statuses, extended_offsets, more_after_good_bye,
           right_replies])
