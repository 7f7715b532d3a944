# SPDX-License-Identifier: GPL-2.0-or-later
# variants: asan
# timeout: 300
"""NBD servers that lie, break off or say nothing: a clear error that names the export, in bounded memory
and time; nothing that looks like a copy is left."""
import os
import resource
import signal
import struct
import subprocess
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
from fakenbd import (ACK, DATA, ERR_UNKNOWN, HAS_FLAGS, HOLE, INFO, META, MULTI, READ_ONLY, STATUS, FakeServer,
                     chunk, option_reply)

IMG = os.environ['IMG']
MEMORY = 400 << 20  # with the sanitizer's
BAD = []
CONVERT = ('convert', '-f', 'raw', '-O', 'raw', 'URI', 'copy.raw')
MAP = ('map', '--output=json', '-f', 'raw', 'URI')
INFO_RAW = ('info', '-f', 'raw', 'URI')


def start(server, argv):
    if os.path.exists('copy.raw'):
        os.unlink('copy.raw')
    return subprocess.Popen([IMG, *[a.replace('URI', server.uri) for a in argv]], stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def judge(name, proc, codes, says=''):
    out, err = proc.communicate(timeout=100)
    err = err.decode('utf-8', 'replace')
    why = None
    if proc.returncode not in codes:
        why = f'exit code {proc.returncode}, expected {codes}'
    elif 'Sanitizer' in err:
        why = 'a sanitizer report'
    elif proc.returncode == 1 and ('nbd+unix:' not in err or says not in err):
        why = f'does not say {says!r} of the export'
    elif proc.returncode and os.path.exists('copy.raw'):
        why = 'a copy is left'
    elif len(out) + len(err) > 1 << 20 or '\x1b' in err:
        why = 'its output'
    if why:
        BAD.append(name)
        print(f'{name}: {why}\n{err[:1500]}')


def attack(name, argv, says='', codes=(1,), **how):
    # A client that waits for the rest of a lie does not wait for ever.
    with FakeServer(**{'leaves': 0 not in codes, **how}) as server:
        judge(f'{name}: {argv[0]}', start(server, argv), codes, says)


def instead(point, make):
    """Replaces one kind of message; make gets the honest one."""
    return lambda name, data: make(data) if name == point else data


def put(point, off, fmt, value):
    def change(data):
        data = bytearray(data)
        struct.pack_into(fmt, data, off, value)
        return bytes(data)
    return instead(point, change)


# ---- handshake ----

def greetings():
    attack('magic', INFO_RAW, tamper=put('greeting', 0, '>Q', 1), says='magic')
    attack('second magic', INFO_RAW, tamper=put('greeting', 8, '>Q', 1), says='style NBD server')
    attack('web server', INFO_RAW, tamper=instead('greeting', lambda _: b'HTTP/1.1 400 Bad Request\r\n\r\n' * 9))
    attack('mail server', INFO_RAW, tamper=instead('greeting', lambda _: b'220 ' + b'x' * 5000))


def option_replies():
    for point in ('structured', 'contexts', 'go'):
        attack(f'magic of {point}', INFO_RAW, tamper=put(point, 0, '>Q', 1))
        attack(f'option of {point}', INFO_RAW, tamper=put(point, 8, '>I', 99))
        attack(f'type of {point}', INFO_RAW, tamper=put(point, 12, '>I', 99))
        attack(f'length of {point}', INFO_RAW, tamper=put(point, 16, '>I', 0xffffffff))
    for text, says in ((b'\x1b[2Jred', '\\x1b[2Jred'), (b'%s%n%d' * 10, '%s%n'), (b'x' * 4096, 'xxx'),
                       (b'\xff\xfe', ''), (b'', '')):
        attack('error text', INFO_RAW, says=says,
               tamper=instead('go', lambda _, t=text: option_reply(7, ERR_UNKNOWN, t)))
    attack('short info', INFO_RAW, tamper=instead('go', lambda _: option_reply(7, INFO, b'\0') + option_reply(7, ACK)))
    attack('no export', INFO_RAW, tamper=instead('go', lambda _: option_reply(7, ACK)))
    attack('contexts without end', INFO_RAW, codes=(0, 1), tamper=instead(
        'contexts', lambda _: option_reply(10, META, struct.pack('>I', 7) + b'base:allocation') * 20000 +
        option_reply(10, ACK)))
    attack('long context', INFO_RAW, codes=(0, 1), tamper=instead(
        'contexts', lambda d: option_reply(10, META, struct.pack('>I', 8) + b'y' * 4096) + d))


def exports():
    with open('new.raw', 'wb') as f:
        f.write(b'n' * (1 << 20))
    for size in (1 << 63, (1 << 64) - 1):
        attack('size', INFO_RAW, size=size, says='size')
    attack('largest size', INFO_RAW, size=(1 << 63) - 1, says='too large')
    attack('size in blocks', INFO_RAW, size=(1 << 20) + 512, blocks=(4096, 4096, 4096), says='multiple')
    attack('no flags', INFO_RAW, flags=0)
    for blocks in ((0, 0, 0), (3, 4096, 4096), (1 << 31, 1 << 31, 1 << 31), (4096, 512, 512), (1, 3, 7)):
        attack(f'blocks {blocks}', CONVERT, blocks=blocks, codes=(0, 1))
    attack('read-only', ('convert', '-n', '-f', 'raw', '-O', 'raw', 'new.raw', 'URI'),
           flags=HAS_FLAGS | READ_ONLY, says='read-only')


# ---- replies ----

def data_chunk(off, data, cookie, **how):
    return chunk(cookie, DATA, struct.pack('>Q', off % (1 << 64)) + data, **how)


def reads():
    def answer(make, **how):
        def tamper(name, data):
            if name != 'read':
                return data
            cookie, length = struct.unpack_from('>QI', data, 8)
            return make(cookie, *struct.unpack_from('>Q', data, 20), length - 8, data)
        return {'tamper': tamper, **how}

    def refused(name, make, says='', **how):
        attack(name, CONVERT, says, **answer(make, **how))

    refused('magic', lambda c, o, n, d: b'\0' * 4 + d[4:])
    refused('other cookie', lambda c, o, n, d: d[:8] + struct.pack('>Q', c + 99) + d[16:])
    refused('before its range', lambda c, o, n, d: data_chunk(o - 1, d[28:], c))
    refused('behind its range', lambda c, o, n, d: data_chunk(o + 1, d[28:], c))
    refused('far behind', lambda c, o, n, d: data_chunk(1 << 63, d[28:], c))
    refused('too much', lambda c, o, n, d: data_chunk(o, d[28:] + b'x' * 4096, c))
    refused('too little', lambda c, o, n, d: data_chunk(o, d[28:-512], c))
    refused('nothing', lambda c, o, n, d: chunk(c, 0))
    refused('empty data', lambda c, o, n, d: data_chunk(o, b'', c))
    refused('only its length', lambda c, o, n, d: chunk(c, DATA, b'1234'))
    refused('length', lambda c, o, n, d: chunk(c, DATA, d[20:], length=0xffffffff))
    refused('unknown chunk', lambda c, o, n, d: chunk(c, 77, b'x' * 100))
    refused('status for a read', lambda c, o, n, d: chunk(c, STATUS, struct.pack('>III', 7, 512, 0)))
    refused('empty hole', lambda c, o, n, d: chunk(c, HOLE, struct.pack('>QI', o, 0)))
    refused('hole without end', lambda c, o, n, d: chunk(c, HOLE, struct.pack('>QI', o, 0xffffffff)))
    refused('short hole', lambda c, o, n, d: chunk(c, HOLE, b'123'))
    refused('error 0', lambda c, o, n, d: chunk(c, 0x8001, struct.pack('>IH', 0, 0)))
    refused('error', lambda c, o, n, d: chunk(c, 0x8001, struct.pack('>IH', 5, 3) + b'abc'), 'Input/output error')
    refused('unknown error', lambda c, o, n, d: chunk(c, 0x8001, struct.pack('>IH', 4711, 0)))
    refused('error with a long text', lambda c, o, n, d: chunk(c, 0x8001, struct.pack('>IH', 5, 60000) + b'x'))
    refused('error outside', lambda c, o, n, d: chunk(c, 0x8002, struct.pack('>IHQ', 5, 0, 1 << 62)))
    refused('simple reply', lambda c, o, n, d: struct.pack('>IIQ', 0x67446698, 0, c) + d[28:])
    # Legal, or only foolish.
    attack('twice', CONVERT, codes=(0, 1),
           **answer(lambda c, o, n, d: data_chunk(o, d[28:28 + n // 2], c, done=0) * 2 + chunk(c, 0)))
    attack('backwards', CONVERT, codes=(0,), **answer(
        lambda c, o, n, d: data_chunk(o + n // 2, d[28 + n // 2:], c, done=0) + data_chunk(o, d[28:28 + n // 2], c)))
    attack('holes', CONVERT, codes=(0,), **answer(lambda c, o, n, d: chunk(c, HOLE, struct.pack('>QI', o, n))))


def statuses():
    def answer(argv, name, payload, codes=(1,)):
        attack(name, argv, codes=codes, tamper=instead(
            'status', lambda d: chunk(struct.unpack_from('>Q', d, 8)[0], STATUS, payload)))

    def entries(*runs, ident=7):
        return struct.pack('>I', ident) + b''.join(struct.pack('>II', *r) for r in runs)

    for argv in (MAP, CONVERT):
        answer(argv, 'no entries', entries())
        answer(argv, 'nothing', b'')
        answer(argv, 'half an entry', entries() + b'123')
        answer(argv, 'empty entry', entries((0, 0)))
        answer(argv, 'empty entry behind another', entries((512, 0), (0, 3)))
        answer(argv, 'other context', entries((1 << 20, 0), ident=8))
        answer(argv, 'longer than asked', entries((0xfffffe00, 0)), codes=(0,))
        answer(argv, 'very many', entries(*[(512, i & 3) for i in range(1 << 20)]), codes=(0, 1))
        answer(argv, 'unknown flags', entries((1 << 20, 0xffffffff)), codes=(0,))
        answer(argv, 'odd lengths', entries((1, 0), (3, 3), (1 << 20, 0)), codes=(0, 1))
    attack('twice', MAP, codes=(0, 1), tamper=instead(
        'status', lambda d: chunk(struct.unpack_from('>Q', d, 8)[0], STATUS, entries((512, 0)), done=0) * 2 +
        chunk(struct.unpack_from('>Q', d, 8)[0], 0)))


def writes():
    argv = ('convert', '-n', '-t', 'none', '-f', 'raw', '-O', 'raw', 'new.raw', 'URI')
    for code, says in ((28, 'No space left'), (5, 'Input/output'), (1, ''), (4711, '')):
        for point in ('write', 'flush'):
            attack(f'{point} with error {code}', argv, says, tamper=instead(
                point, lambda d, c=code: d[:4] + struct.pack('>I', c) + d[8:]))
    attack('zeros refused', argv, codes=(0,), tamper=instead(
        'zero', lambda d: d[:4] + struct.pack('>I', 95) + d[8:]))


# ---- the end, and silence ----

def endings():
    """Closed behind every message, and within each."""
    with FakeServer() as server:
        judge('honest', start(server, CONVERT), (0,))
        total = server.sent
    cuts = sorted({*range(0, 260, 7), 4300, total - 1, total // 2, total // 3})
    for cut in cuts:
        left = [cut]

        def tamper(_, data, left=left):
            if not left[0]:
                return None
            data = data[:left[0]]
            left[0] -= len(data)
            return data
        attack(f'closed after {cut} bytes', CONVERT, tamper=tamper)


def silence():
    """A server that says nothing any more: the user gives up, and it ends."""
    for point, count in (('greeting', 1), ('go', 1), ('status', 1), ('read', 1), ('read', 2), ('read', 3)):
        seen = [0]

        def tamper(name, data, seen=seen, point=point, count=count):
            seen[0] += name == point
            return 'silence' if seen[0] >= count and name == point else data
        with FakeServer(tamper=tamper) as server:
            proc = start(server, ('convert', '-O', 'raw', 'URI', 'copy.raw'))
            while not server.arrived.wait(0.05) and proc.poll() is None:
                pass
            proc.send_signal(signal.SIGTERM)
            judge(f'silent at {point} {count}', proc, (-signal.SIGTERM,))


def several():
    """Further connections that are refused, lie, or never come are done without."""
    for name, second in (('refused', lambda n, d: None), ('another size', put('go', 22, '>Q', 1 << 21))):
        greetings_seen = [0]

        def tamper(name, data, seen=greetings_seen, second=second):
            seen[0] += name == 'greeting'
            return second(name, data) if seen[0] > 1 and name in ('greeting', 'go') else data
        attack(f'second connection {name}', (*CONVERT[:1], '-m', '4', *CONVERT[1:]), codes=(0,), tamper=tamper,
               flags=HAS_FLAGS | READ_ONLY | MULTI)


for group in (greetings, option_replies, exports, reads, statuses, writes, endings, silence, several):
    group()
if resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss > MEMORY // 1024:
    BAD.append('memory')
    print(f'used {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss} KiB')
sys.exit(f'{len(BAD)} failed' if BAD else 0)
