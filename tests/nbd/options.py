# SPDX-License-Identifier: GPL-2.0-or-later
"""The handshake of the NBD server, option by option, as the specification has it."""
import os
import struct
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
import nbd_client as nbd
from nbd_client import Closed, Handshake
from nbd_server import (KiB, MiB, Server, ended, fails, pattern, raw_disk, refused, require, same,
                        serve_cases)

SIZE = MiB + 1536
WRONG = (nbd.ERR_INVALID, nbd.ERR_UNKNOWN, nbd.ERR_TOO_BIG)


def still_good(h):
    """The connection goes on, and is in step."""
    same(h.list(), [('', 'a disk')], 'list')
    t = h.go()
    same(t.read(0, 512), pattern(0, 512))
    t.disconnect()


# ---- how it begins ----

def export_name_pads_with_zeroes(s):
    t = s.handshake(nbd.FIXED).export_name()
    same(t.size, SIZE)
    same(t.read(4096, 4096), pattern(4096, 4096))
    t.disconnect()


def no_zeroes_means_no_padding(s):
    t = s.handshake(nbd.FIXED | nbd.NO_ZEROES).export_name()
    same(t.size, SIZE)
    same(t.read(4096, 4096), pattern(4096, 4096))
    t.disconnect()


def go_never_pads(s):
    t = s.handshake(nbd.FIXED).go()
    same(t.read(4096, 4096), pattern(4096, 4096))
    t.disconnect()


def export_name_for_clients_that_are_not_fixed(s):
    t = s.handshake(0).export_name()
    same(t.read(0, 512), pattern(0, 512))
    t.disconnect()


def unknown_client_flags_end_it(s):
    for flags in (4, 1 << 31, 0xffffffff):
        h = s.handshake(nbd.FIXED | flags)
        ended(h.list)
        h.close()


def wrong_option_magic_ends_it(s):
    h = s.handshake()
    h.wire.send(struct.pack('>8sII', b'IHAVEOPX', nbd.LIST, 0))
    ended(h.replies, nbd.LIST)


def bytes_come_one_by_one(s):
    h = s.handshake()
    for option, data in ((nbd.LIST, b''), (nbd.INFO, nbd.info_bytes('', [nbd.INFO_BLOCK_SIZE]))):
        for byte in nbd.option_bytes(option, data):
            h.wire.send(bytes([byte]))
        same(h.replies(option)[-1][0], nbd.REP_ACK)
    still_good(h)


# ---- unknown ones, sizes ----

def unknown_options_are_unsupported(s):
    h = s.handshake()
    for option in (0, 4, 12, 99, 0x7fffffff, 0xffffffff):
        for data in (b'', b'x', bytes(4096)):
            same(h.option(option, data)[-1][0], nbd.ERR_UNSUP, f'option {option}')
    still_good(h)


def data_of_60_KiB_is_skipped(s):
    h = s.handshake()
    same(h.option(99, bytes(60 * KiB))[-1][0], nbd.ERR_UNSUP)
    still_good(h)


def oversized_data_is_refused_or_ends_it(s):
    for option in (nbd.LIST, nbd.INFO, nbd.GO, nbd.SET_META_CONTEXT, nbd.EXPORT_NAME, 99):
        h = s.handshake().mode('structured')
        try:
            found = h.option(option, bytes(300 * KiB))
            require(option != nbd.EXPORT_NAME, 'a name of 300 KiB')
            require(found[-1][0] & nbd.REP_ERROR, f'option {option} of 300 KiB: {found}')
            still_good(h)
        except Closed:
            h.close()


def four_gigabytes_are_not_waited_for(s):
    for option in (nbd.LIST, nbd.INFO, nbd.EXPORT_NAME, nbd.ABORT, 99):
        h = s.handshake()
        try:
            h.option(option, b'', length=0xffffffff)
        except Closed:
            pass
        h.close()


# ---- LIST, ABORT ----

def list_takes_no_data(s):
    h = s.handshake()
    refused(nbd.ERR_INVALID, h.ask, nbd.LIST, b'x')
    still_good(h)


def abort_is_acknowledged(s):
    s.handshake().abort()


def abort_may_carry_data(s):
    s.handshake().abort(b'good bye')


def abort_by_clients_that_do_not_wait(s):
    for _ in range(20):
        h = s.handshake()
        h.wire.send(nbd.option_bytes(nbd.ABORT))
        h.close()
    still_good(s.handshake())


# ---- INFO, GO, EXPORT_NAME ----

def info_tells_the_true_size(s):
    h = s.handshake()
    info = h.info()
    same(info.size, SIZE)
    require(info.flags & nbd.SEND_FLUSH and info.flags & nbd.SEND_FUA, f'{info.flags:#x}')
    still_good(h)


def info_gives_what_is_asked_for(s):
    h = s.handshake()
    info = h.info('', [nbd.INFO_NAME, nbd.INFO_DESCRIPTION, nbd.INFO_BLOCK_SIZE])
    same((info.name, info.description), ('', 'a disk'))
    require(info.block, 'no block sizes')
    still_good(h)


def unknown_information_is_ignored(s):
    h = s.handshake()
    same(h.info('', [4, 99, 0xffff, nbd.INFO_BLOCK_SIZE]).size, SIZE)
    still_good(h)


def information_asked_for_twice(s):
    """Clients must not; whatever is answered, it comes once."""
    h = s.handshake()
    h.option(nbd.INFO, nbd.info_bytes('', [nbd.INFO_BLOCK_SIZE] * 500))
    h.info('', [nbd.INFO_EXPORT])
    still_good(h)


def go_says_the_same_as_info(s):
    for mode in ('structured', 'simple'):
        h = s.handshake().mode(mode)
        kinds = [nbd.INFO_BLOCK_SIZE, nbd.INFO_DESCRIPTION]
        a, b = vars(h.info('', kinds)), vars(h.info('', kinds, nbd.GO))
        same(a, b)


def malformed_info_is_invalid(s):
    h = s.handshake()
    good = nbd.info_bytes('', [nbd.INFO_BLOCK_SIZE])
    bad = [good[:n] for n in range(len(good))] + [
        good + b'x', good + b'xx', struct.pack('>IH', 0xffffffff, 0), struct.pack('>IH', 1, 0),
        struct.pack('>IH', 0x7fffffff, 0), struct.pack('>IH', 0, 0xffff)]
    for option in (nbd.INFO, nbd.GO):
        for data in bad:
            refused(nbd.ERR_INVALID, h.ask, option, data)
    still_good(h)


def unknown_exports_are_unknown(s):
    h = s.handshake()
    for option in (nbd.INFO, nbd.GO):
        for name in ('other', 'x' * 255, 'x' * 256, 'x' * 257, 'x' * 4090, 'x' * 4096, 'ü' * 2048, ' '):
            refused(nbd.ERR_UNKNOWN, h.info, name, (), option)
    still_good(h)


def names_that_are_no_strings(s):
    h = s.handshake()
    for name in (b'x' * 4097, b'x' * 60000, b'a\0b', b'\0', b'\xff\xfe', b'\xc0\x80'):
        refused(WRONG, h.info, name, (), nbd.INFO)
        refused(WRONG, h.info, name, (), nbd.GO)
    still_good(h)


def export_name_of_nothing_ends_it(s):
    for name in ('other', 'x' * 256, 'x' * 4096, 'x' * 4097, 'x' * 60000):
        ended(s.handshake().export_name, name)


# ---- STRUCTURED_REPLY, EXTENDED_HEADERS ----

def structured_reply_takes_no_data(s):
    h = s.handshake()
    refused(nbd.ERR_INVALID, h.ask, nbd.STRUCTURED_REPLY, b'x')
    t = h.go()  # so replies are simple
    same(t.read(0, 512), pattern(0, 512))
    t.disconnect()


def structured_reply_twice(s):
    h = s.handshake().structured_reply()
    require(h.option(nbd.STRUCTURED_REPLY)[-1][0] in (nbd.REP_ACK, nbd.ERR_INVALID), 'structured twice')
    still_good(h)


def extended_headers_take_no_data(s):
    h = s.handshake()
    refused(nbd.ERR_INVALID, h.ask, nbd.EXTENDED_HEADERS, b'x')
    still_good(h)


def extended_headers_win(s):
    still_good(s.handshake().structured_reply().extended_headers())
    h = s.handshake().extended_headers()
    refused(nbd.ERR_EXT_HEADER_REQD, h.structured_reply)
    still_good(h)


def export_name_with_extended_headers_ends_it(s):
    h = s.handshake().extended_headers()
    h.wire.send(nbd.option_bytes(nbd.EXPORT_NAME))
    ended(h.wire.receive, 10)


# ---- STARTTLS ----

def starttls_is_refused_without_tls(s):
    h = s.handshake()
    refused((nbd.ERR_POLICY, nbd.ERR_UNSUP, nbd.ERR_PLATFORM), h.ask, nbd.STARTTLS)
    refused((nbd.ERR_INVALID, nbd.ERR_POLICY, nbd.ERR_UNSUP), h.ask, nbd.STARTTLS, b'x')
    still_good(h)


# ---- what is negotiated ends with its connection ----

def flags_depend_on_what_was_negotiated(s):
    h = s.handshake()
    require(not h.info().flags & nbd.SEND_DF, 'DF without structured replies')
    h.structured_reply()
    require(h.info().flags & nbd.SEND_DF, 'no DF with structured replies')
    still_good(h)


def commands_before_go_are_no_options(s):
    h = s.handshake()
    h.wire.send(nbd.request_bytes(False, nbd.READ, 1, 0, 512))
    ended(h.replies, 0)


def options_after_go_are_no_commands(s):
    t = s.go('simple')
    t.wire.send(nbd.option_bytes(nbd.LIST))
    ended(t.read, 0, 512)


def failed_go_can_be_repeated(s):
    h = s.handshake().structured_reply()
    refused(nbd.ERR_UNKNOWN, h.go, 'other')
    h.set_contexts('', ['base:allocation'])
    refused(nbd.ERR_UNKNOWN, h.go, 'other')
    t = h.go()
    require(t.status(0, 4096)['base:allocation'], 'no status')
    fails(nbd.EINVAL, t.read, SIZE, 512)
    t.disconnect()


def silent_and_leaving_clients_hold_nobody_up(s):
    silent = [s.connect() for _ in range(20)]
    begun = [Handshake(s.connect()) for _ in range(20)]
    still_good(s.handshake())
    for sock in silent:
        sock.close()
    for h in begun:
        h.close()
    still_good(s.handshake())


serve_cases(Server('-f', 'raw', '-D', 'a disk', raw_disk('x.raw', SIZE, (0, SIZE))), globals())
