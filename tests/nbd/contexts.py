# SPDX-License-Identifier: GPL-2.0-or-later
"""Which meta contexts the NBD server offers and selects, and what it does with queries that are
wild, many, malformed, or for another export. An image with a backing file and two bitmaps."""
import os
import struct
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
import nbd_client as nbd
from nbd_client import Closed, Refused, contexts_bytes, string
from nbd_server import KiB, MiB, Server, fails, need, raw_disk, refused, require, same, serve_cases, tool

BASE, DEPTH = 'base:allocation', 'qemu:allocation-depth'
ONE, TWO = 'qemu:dirty-bitmap:one', 'qemu:dirty-bitmap:two'
ALL = {BASE, DEPTH, ONE, TWO}
OPTIONS = (nbd.LIST_META_CONTEXT, nbd.SET_META_CONTEXT)


def ready(s, mode='structured'):
    return s.handshake().mode(mode)


def status_fails(h):
    """Nothing is selected."""
    t = h.go()
    fails(nbd.EINVAL, t.status, 0, 4096)
    t.disconnect()


# ---- LIST ----

def list_without_queries_lists_all(s):
    same(set(ready(s).list_contexts()), ALL)


def list_without_queries_extended(s):
    same(set(ready(s, 'extended').list_contexts()), ALL)


def list_takes_wildcards(s):
    h = ready(s)
    for queries, want in ((['base:'], {BASE}), (['qemu:'], {DEPTH, ONE, TWO}),
                          (['qemu:dirty-bitmap:'], {ONE, TWO}), ([ONE], {ONE}), ([DEPTH], {DEPTH}),
                          ([BASE], {BASE}), (['base:', 'qemu:'], ALL),
                          ([ONE, ONE, 'qemu:'], {DEPTH, ONE, TWO})):
        same(set(h.list_contexts('', queries)), want, queries)


def list_finds_nothing_for_unknown_queries(s):
    h = ready(s)
    for query in ('base:other', 'base:allocation2', 'qemu:other', 'qemu:dirty-bitmap:three', 'x-local:thing',
                  'qemu:dirty-bitmap', 'other:', 'Base:allocation', 'base:alloc', 'qemu:dirty-bitmap:on',
                  'nbd-server:', 'x' * 4000 + ':y'):
        same(h.list_contexts('', [query]), [], query)


def list_changes_no_selection(s):
    h = ready(s)
    h.set_contexts('', [BASE])
    h.list_contexts('', ['qemu:'])
    t = h.go()
    same(set(t.status(0, 4096)), {BASE})
    t.disconnect()


# ---- SET ----

def set_selects_what_is_named(s):
    h = ready(s)
    for queries in ([BASE], [ONE], [DEPTH, TWO], [TWO, ONE, DEPTH, BASE]):
        same(set(h.set_contexts('', queries)), set(queries))
    t = h.go()
    same(set(t.status(0, 4096)), ALL)
    t.disconnect()


def set_takes_no_wildcards(s):
    for query in ('base:', 'qemu:', 'qemu:dirty-bitmap:'):
        h = ready(s)
        same(h.set_contexts('', [query]), {}, query)
        status_fails(h)


def set_ignores_the_unknown(s):
    h = ready(s)
    same(set(h.set_contexts('', ['x-local:thing', 'base:other', ONE, 'qemu:dirty-bitmap:three'])), {ONE})


def set_selects_each_once(s):
    h = ready(s)
    same(set(h.set_contexts('', [ONE, BASE, ONE, ONE, BASE])), {ONE, BASE})
    t = h.go()
    same(set(t.status(0, 4096)), {ONE, BASE})
    t.disconnect()


def set_without_queries_selects_nothing(s):
    h = ready(s)
    h.set_contexts('', [BASE])
    same(h.set_contexts(), {})
    status_fails(h)


def set_replaces_the_selection(s):
    h = ready(s)
    h.set_contexts('', [BASE, ONE])
    h.set_contexts('', [DEPTH])
    t = h.go()
    same(set(t.status(0, 4096)), {DEPTH})
    t.disconnect()


def failed_set_replaces_it_too(s):
    for data in (b'', contexts_bytes('', [BASE])[:-1], contexts_bytes('other', [BASE])):
        h = ready(s)
        h.set_contexts('', [BASE])
        refused((nbd.ERR_INVALID, nbd.ERR_UNKNOWN), h.ask, nbd.SET_META_CONTEXT, data)
        status_fails(h)


# ---- not before replies are structured ----

def set_needs_structured_replies(s):
    h = s.handshake()
    refused((nbd.ERR_INVALID, nbd.ERR_EXT_HEADER_REQD), h.set_contexts, '', [BASE])
    t = h.go()
    fails(nbd.EINVAL, t.status, 0, 4096)
    t.disconnect()


def list_without_structured_replies(s):
    h = s.handshake()
    try:
        same(set(h.list_contexts()), ALL)
    except Refused as e:
        same(e.kind, nbd.ERR_INVALID)


def status_needs_a_selection(s):
    for mode in ('simple', 'structured'):
        status_fails(ready(s, mode))


def status_needs_a_selection_extended(s):
    status_fails(ready(s, 'extended'))


# ---- malformed ----

def unknown_exports(s):
    h = ready(s)
    refused(nbd.ERR_UNKNOWN, h.list_contexts, 'other')
    refused(nbd.ERR_UNKNOWN, h.set_contexts, 'other', [BASE])
    refused(nbd.ERR_UNKNOWN, h.list_contexts, 'x' * 4096)
    same(set(h.list_contexts()), ALL)


def malformed_requests_are_invalid(s):
    h = ready(s)
    good = contexts_bytes('', [BASE, ONE])
    bad = [good[:n] for n in range(len(good))] + [
        good + b'x', string('')[:3], struct.pack('>II', 0, 1), struct.pack('>II', 0, 0xffffffff),
        struct.pack('>III', 0, 1, 0xffffffff), struct.pack('>III', 0, 1, 1), struct.pack('>II', 0xffffffff, 0),
        struct.pack('>II', 0x7fffffff, 0), struct.pack('>II', 5, 0), contexts_bytes() + b'x']
    for option in OPTIONS:
        for data in bad:
            if data != contexts_bytes():
                refused(nbd.ERR_INVALID, h.ask, option, data)
    same(set(h.list_contexts()), ALL)


def queries_that_are_no_contexts(s):
    """They may be ignored or refused, but never select anything."""
    h = ready(s)
    for query in ('', ':', 'base', 'qemu', ':allocation', b'base:\0', b'base:\xff', b'\xff:x', 'x' * 4096,
                  b'base:' + b'x' * 5000, b'qemu:' + b'y' * 60000):
        for option in OPTIONS:
            found = h.option(option, contexts_bytes('', [query]))
            require(found[-1][0] in (nbd.REP_ACK, nbd.ERR_INVALID, nbd.ERR_TOO_BIG), f'{query[:40]}: {found}')
            same(len(found), 1, query[:40])
    same(set(h.list_contexts()), ALL)


def many_queries(s):
    """As many as fit into an option are answered, or are too many; more may end the connection."""
    for n in (100, 1000, 3000, 20000):
        for option in OPTIONS:
            h = ready(s)
            try:
                found = h.option(option, contexts_bytes('', [ONE] + ['x-y:z'] * n + [BASE]))
                require(found[-1][0] in (nbd.ERR_TOO_BIG, nbd.REP_ACK), f'{n} queries: {found}')
                same(len(found), 3 if found[-1][0] == nbd.REP_ACK else 1)
                same(set(h.list_contexts()), ALL)
            except Closed:
                require(n * 9 > 64 * KiB, f'{n} queries end the connection')
            h.close()


def repeated_settings(s):
    """IDs stay good however often they are given out."""
    h = ready(s)
    for i in range(60):
        same(set(h.set_contexts('', [BASE, ONE] if i & 1 else [DEPTH])), {BASE, ONE} if i & 1 else {DEPTH})
    t = h.go()
    same(set(t.status(0, 4096)), {BASE, ONE})
    t.disconnect()


need('qemu-img')
raw_disk('base.raw', 4 * MiB, (0, MiB))
tool('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', 'base.raw', '-F', 'raw', 'x.qcow2')
for bitmap in ('one', 'two'):
    tool('qemu-img', 'bitmap', '--add', 'x.qcow2', bitmap)
serve_cases(Server('-f', 'qcow2', '-A', '-B', 'one', '-B', 'two', os.path.abspath('x.qcow2')), globals())
