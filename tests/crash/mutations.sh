# SPDX-License-Identifier: GPL-2.0-or-later
# Proves that the crash sweeps can fail: with each of the flushes that the order of writes needs left
# out, one at a time, each sweep that has to notice finds a state that must not be.
# timeout: 300
# variants: release
set -eu
[ "$VARIANT" = release ] || { echo "links with the release build"; exit 77; }

compile() {
	${CC:-gcc} -std=gnu11 -O2 -pthread -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -I"$TOP/lib" "$@"
}

# build PROGRAM SWEEP OBJECT…: objects of the driver that take the place of the real ones
build() {
	program=$1 sweep=$2
	shift 2
	compile "$@" "$BUILD/tests/crash/$sweep.o" -Wl,--start-group "$BUILD/libtest.a" \
		"$BUILD/libdoubles.a" "$BUILD/libcore.a" -Wl,--end-group -o "$program" \
		-ldeflate -lzstd -ljansson -lseccomp -lz
}

missed=
# notices WHAT PROGRAM: the first seeds; what they do not show, others may
notices() {
	if "./$2" >out 2>&1; then
		missed="$missed $1/$2"
	else
		grep -q '^FAILED: SEED=' out || { cat out; exit 1; }
		echo "$1, $2: $(tail -n 1 out)"
	fi
}

compile -DQCOW2_LEAVE_OUT -c "$TOP/lib/formats/qcow2/turn.c" -o turn.o
build image qcow2-power-cut turn.o
build data qcow2-data-file turn.o
build chain backing-power-cut turn.o
barriers=$(sed -n '/^enum barrier {/,/^};/s/^	BARRIER_\([A-Z_]*\).*/\1/p' "$TOP/lib/formats/qcow2/qcow2.h")

# With nothing left out they are the same sweeps: fine.
SEED=1 ROUNDS=2 LEAVE_OUT=0 ./image
SEED=1 LEAVE_OUT=0 ./data
SEED=1 LEAVE_OUT=0 ./chain
LEAVE_OUT=0
export LEAVE_OUT
for name in $barriers; do
	LEAVE_OUT=$((LEAVE_OUT + 1))
	[ "$name" = DATA ] || notices "$name" image
	case $name in
	REFCOUNTS | POINTERS | SETTLED | DATA) notices "$name" data ;;
	esac
	case $name in
	REFCOUNTS | POINTERS | HEADER | HEADER_SWITCH) notices "$name" chain ;;
	esac
done
[ "$LEAVE_OUT" -ge 16 ]

# commit: what is in the backing file now, before the overlay is emptied.
sed 's/r = img_settle(args->base, err);/r = 0;/' "$TOP/lib/ops/commit.c" >commit.c
! cmp -s commit.c "$TOP/lib/ops/commit.c" || { echo "commit.c has changed: adapt this test" >&2; exit 1; }
compile -c commit.c -o commit.o
build commit backing-power-cut commit.o
notices "the settled backing file" commit
[ -z "$missed" ] || { echo "not noticed when left out:$missed" >&2; exit 1; }
