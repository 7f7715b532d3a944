# SPDX-License-Identifier: GPL-2.0-or-later
# timeout: 300
"""Bitmap directories and tables that are not what they should be. Who does not need them reads the disk;
who would have to keep them up to date refuses to write, and says why; nothing becomes worse."""
import os
import struct
import sys

sys.path.insert(0, os.path.join(os.environ['TOP'], 'tests', 'lib'))
# pylint: disable=wrong-import-position
from hostile import Image, Mistake, Run, copy, fingerprint, read_disk, repair, run_cases

K64, U64 = 1 << 16, (1 << 64) - 1
NEW = 'new.qcow2'
SEEN = set() # faults for which every command was tried


def with_bitmaps(*entries, **ext):
    image = Image()
    image.bitmaps(list(entries), **ext)
    return image.close()


def convert(path):
    """A copy with bitmaps; nothing is left of one that fails."""
    run = Run('convert', '--bitmaps', '-O', 'qcow2', path, NEW)
    if run.code == 0:
        Run('check', NEW).expect(0)
        os.unlink(NEW)
    elif os.path.exists(NEW):
        run.fail(f'{NEW} was left behind')
    return run


def changes(path, only=()):
    """Commands that write, each on a copy: (command, run, what check says afterwards)."""
    with open('data.raw', 'wb') as f:
        f.write(b'new data' * (1 << 17))
    for argv in (['bitmap', '--add', 'X', 'new'], ['bitmap', '--remove', 'X', 'b0'],
                 ['bitmap', '--clear', 'X', 'b0'], ['bitmap', '--enable', 'X', 'b0'],
                 ['bitmap', '--disable', 'X', 'b0'], ['bitmap', '--merge', 'b0', 'X', 'b0'],
                 ['convert', '-n', '-O', 'qcow2', 'data.raw', 'X'], ['resize', '-q', 'X', '+64M'],
                 ['snapshot', '-c', 'new', 'X'], ['amend', '-o', 'lazy_refcounts=on', 'X']):
        if only and argv[0] not in only and argv[1] not in only:
            continue
        target = copy(path)
        run = Run(*[target if a == 'X' else a for a in argv])
        yield argv, run, Run('check', '-q', target).code
        os.unlink(target)


def looks(path, info, check, says):
    """What only reads: the disk is there whatever the bitmaps are."""
    before = fingerprint(path)
    for argv in (['info'], ['info', '--output=json'], ['info', '--untrusted']):
        Run(*argv, path).expect(info, says)
    Run('check', path).expect(check)
    Run('check', '--output=json', path).expect(check)
    for argv in (['map'], ['compare', path], ['measure', '-O', 'qcow2']):
        Run(*argv, path).expect({0, 1})
    read_disk(path).expect(0)
    read_disk(path, '--untrusted').expect(0)
    if fingerprint(path) != before:
        raise Mistake(f'{path} was changed by commands that only look')


def directory(path, says):
    """A directory that cannot be read at all: reported, and no more writes before it is dropped."""
    again = says in SEEN
    SEEN.add(says)
    if not again:
        looks(path, 1, 2, says)
    Run('info', path).expect(1, says)
    run = Run('check', path).expect(2)
    if not run.err.startswith('ERROR bitmap directory at offset '):
        run.fail('does not report the directory')
    if not again:
        convert(path).expect(1, says)
        repair(path).expect(0, 'Dropping all bitmaps')
        mended = copy(path)
        Run('check', '-r', 'all', mended).expect(0)
        Run('compare', path, mended).expect(0)
        Run('bitmap', '--add', mended, 'new').expect(0)
        Run('check', mended).expect(0)
        os.unlink(mended)
    before = fingerprint(path)[2]
    for _, run, after in changes(path, ('-n',) if again else ()):
        run.expect(1, says)
        if after != 2:
            run.fail(f'check says {after} afterwards')
    if fingerprint(path)[2] != before:
        raise Mistake(f'{path} was changed')


def table(path, says, fails=('--clear', '-n', 'resize'), check=2, repaired=2, copied=1):
    """The directory is fine, a bitmap is not: what needs its bits fails, and removing it helps."""
    again = says in SEEN
    SEEN.add(says)
    if not again:
        looks(path, 0, check, None)
        repair(path).expect(repaired)
    convert(path).expect(copied, says)
    for argv, run, after in changes(path, ('--remove', '-n') if again else ()):
        if argv[1] == '--remove':
            run.expect(0)
            if after != 0:
                run.fail(f'check says {after} after the bitmap has gone')
        else:
            run.expect(1 if argv[0] in fails or argv[1] in fails else {0, 1}, says)
            if after not in (0, check):
                run.fail(f'check says {after} afterwards')


def header_extension():
    for length in (0, 23, 25):
        directory(with_bitmaps({}, length=length), 'invalid length of the header extension')
    directory(with_bitmaps({}, reserved=1), 'reserved field of the header extension')
    for n in (0, 65536, (1 << 32) - 1):
        directory(with_bitmaps({}, n=n), 'invalid number of bitmaps')
    image = Image()
    image.bitmaps([{}])
    with open(image.path, 'rb') as f:
        f.seek(112)
        image.write(112 + 32, f.read(32))
    directory(image.close(), 'two header extensions')


def length_past_the_header():
    image = Image()
    image.bitmaps([{}], length=(1 << 32) - 1)
    path = image.close()
    for argv in (['info'], ['check'], ['check', '-r', 'all'], ['map'], ['bitmap', '--add']):
        Run(*argv, path, *(['new'] if '--add' in argv else [])).expect({1, 2}, 'header')
    read_disk(path).expect(1, 'header')


def directory_place():
    for off in (0, 512, U64 - K64 + 1, (1 << 63) - K64):
        directory(with_bitmaps({}, off=off), 'invalid place or size')
    for size in (1 << 26, U64):
        directory(with_bitmaps({}, bytes=size), 'invalid place or size')
    directory(with_bitmaps({}, off=1 << 50), 'too short')
    for size in (0, 24, 33):
        directory(with_bitmaps({}, bytes=size), 'too short|more bitmaps')
    directory(with_bitmaps({}, n=2), 'too short')
    directory(with_bitmaps({}, {}, n=1), 'more bitmaps than the header says')
    # Refcount table, refcount block, L1, L2, data, the header.
    for k in range(1, 6):
        directory(with_bitmaps({}, off=k * K64), 'bitmap')


def directory_on_metadata():
    # Of which the beginning is an entry by chance, or by purpose.
    image = Image()
    image.bitmaps([{'name': b'b0'}])
    entry = struct.pack('>QIIBBHI', 6 * K64, 1, 2, 1, 16, 2, 0) + b'b0'.ljust(8, b'\0')
    image.write(4 * K64 + 1024, b'')
    image.write(2 * K64 + K64 // 2, entry)
    image.bitmaps([], n=1, bytes=len(entry), off=4 * K64)
    directory(image.close(), 'bitmap')


def entry_fields():
    for off in (0, 5 * K64 + 8, U64 - K64 + 1):
        directory(with_bitmaps({'table_offset': off}), 'invalid offset of a bitmap table')
    for size in (0, 8193, (1 << 32) - 1):
        directory(with_bitmaps({'table_size': size}), 'invalid size of a bitmap table')
    for bits in (0, 8, 32, 63, 64):
        directory(with_bitmaps({'granularity_bits': bits}), 'invalid granularity of a bitmap')
    for flags in (8, 1 << 31):
        directory(with_bitmaps({'flags': flags}), 'unknown flags or type')
    for kind in (0, 2):
        directory(with_bitmaps({'type': kind}), 'unknown flags or type')
    image = Image(size=1 << 40)
    image.header(l1_size=2048)
    image.bitmaps([{'granularity_bits': 9}])
    directory(image.close(), 'too small for the disk')


def names():
    directory(with_bitmaps({'name': b''}), 'without a name')
    directory(with_bitmaps({'name': b'n' * 1024}), 'name of a bitmap too long')
    directory(with_bitmaps({'name_len': 65535}), 'too short')
    directory(with_bitmaps({'name': b'b0', 'name_len': 3}), 'zero byte')
    directory(with_bitmaps({'name': b'a\0b'}), 'zero byte')
    directory(with_bitmaps({'name': b'abc', 'padding': b'x'}), 'padding')
    directory(with_bitmaps({'name': b'b0'}, {'name': b'x'}, {'name': b'b0'}), 'of the same name')


def names_that_steer_the_terminal():
    path = with_bitmaps({'name': b'\x1b[2J\x1b]0;title\x07\r\nsecond line \xff\xfe'})
    looks(path, 0, 0, None)
    for argv in (['info'], ['info', '--output=json'], ['bitmap', '--add']):
        run = Run(*argv, path, *(['new'] if '--add' in argv else [])).expect(0)
        if '\x1b' in run.out + run.err or '\nsecond line' in run.out + run.err:
            run.fail('a name steers the terminal')


def extra_data():
    for n in ((1 << 32) - 1, 1 << 20):
        directory(with_bitmaps({'extra_len': n}), 'too short')
    # What we do not know, and may not ignore: not to be used, and left as it is.
    path = with_bitmaps({'extra': b'unknown!'})
    looks(path, 0, 0, None)
    table(path, 'inconsistent', ('--clear', '--merge', '--enable', '--disable', 'resize'), 0, 0)
    target = copy(path)
    Run('bitmap', '--add', target, 'new').expect(0)
    Run('bitmap', '--clear', target, 'new').expect(0)
    with open(target, 'rb') as f:
        if b'unknown!b0' not in f.read():
            raise Mistake('the extra data is gone')
    # May be ignored: kept, however much it is.
    path = with_bitmaps({'extra': b'x' * (10 << 20), 'flags': 6})
    for argv in (['info', path], ['check', path], ['bitmap', '--clear', path, 'b0'], ['resize', '-q', path, '+64M'],
                 ['check', path]):
        Run(*argv).expect(0)


def in_use():
    path = with_bitmaps({'flags': 3, 'table': [U64, 2]})
    looks(path, 0, 2, None)
    path = with_bitmaps({'flags': 3})
    table(path, 'inconsistent', ('--clear', '--merge', '--enable', '--disable', 'resize'), 0, 0)


def too_many():
    # As many as there may be, each with the longest name.
    image = Image(size=1 << 20)
    shared = image.new(clusters=1)
    entry = {'table_offset': shared, 'table': [0], 'flags': 3}
    image.bitmaps([dict(entry, name=b'%06d' % i + b'n' * 900) for i in range(65535)])
    path = image.close()
    Run('info', path, much=True).expect(0)
    Run('check', path).expect(2)
    Run('bitmap', '--add', path, 'new').expect(1)
    Run('convert', '--bitmaps', '-O', 'qcow2', path, NEW).expect(1)


def tables_of_the_wrong_size():
    for size in (2, 8192):
        table(with_bitmaps({'table_size': size}), 'does not fit the disk')


def tables_past_the_end():
    table(with_bitmaps({'table_offset': 1 << 50}), 'beyond the end')


def tables_on_metadata():
    # Refcount table, refcount block, L1, L2; on each other; on the directory.
    for k in range(1, 5):
        path = with_bitmaps({'table_offset': k * K64})
        Run('info', path).expect(0)
        Run('check', path).expect(2)
        for _, run, after in changes(path, () if k == 1 else ('--add', '-n')):
            run.expect({0, 1}, 'overlaps other metadata|refcount')
            if after != 2:
                run.fail(f'check says {after} afterwards')
    path = with_bitmaps({}, {'table_offset': 9 * K64})
    looks(path, 0, 2, None)
    for argv, run, after in changes(path):
        run.expect({0, 1}, 'overlap|metadata')
        if after == 0:
            run.fail(f'check says nothing after {argv}')


def table_entries():
    bad = r'is invalid'
    for value in (2, 1 << 56, 5 * K64 + 512, 5 * K64 | 1, 1 << 50, 0xffffffffff0000):
        table(with_bitmaps({'table': [value]}), bad)


def table_entries_on_metadata():
    # The header, the refcount table, the refcount block, L1, L2, the table itself, the directory.
    for k in (1, 2, 3, 4, 9, 10):
        table(with_bitmaps({'table': [k * K64]}), 'other metadata|is invalid', repaired={0, 2}, copied={0, 1})


def table_entries_on_data():
    # Bits of a bitmap that are guest data, too: after the repair nobody writes into the other's.
    path = with_bitmaps({'table': [5 * K64]})
    looks(path, 0, 2, None)
    target = copy(path)
    Run('check', '-r', 'all', target).expect(0)
    Run('bitmap', '--clear', target, 'b0').expect(0)
    Run('bitmap', '--remove', target, 'b0').expect(0)
    Run('check', target).expect({0, 2, 3})
    Run('compare', path, target).expect(0)


def all_ones():
    path = with_bitmaps({'table': [1]})
    looks(path, 0, 0, None)
    convert(path).expect(0)
    for argv, run, after in changes(path):
        run.expect({0, 1} if argv[0] == 'sparsify' else 0)
        if after:
            run.fail(f'check says {after} afterwards')


run_cases([header_extension, length_past_the_header, directory_place, directory_on_metadata, entry_fields,
           names, names_that_steer_the_terminal, extra_data, in_use, too_many, tables_of_the_wrong_size,
           tables_past_the_end, tables_on_metadata, table_entries, table_entries_on_metadata,
           table_entries_on_data, all_ones])
