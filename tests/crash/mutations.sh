# SPDX-License-Identifier: GPL-2.0-or-later
# Proves that the crash sweep can fail: with each of the flushes that the order of writes needs left
# out of the driver, one at a time, it finds a state that must not be.
# timeout: 300
# variants: release
set -eu
[ "$VARIANT" = release ] || { echo "links with the release build"; exit 77; }

compile() {
	${CC:-gcc} -std=gnu11 -O2 -pthread -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -I"$TOP/lib" "$@"
}

compile -DQCOW2_LEAVE_OUT -c "$TOP/lib/formats/qcow2/turn.c" -o turn.o
compile turn.o "$BUILD/tests/crash/qcow2-power-cut.o" -Wl,--start-group "$BUILD/libtest.a" \
	"$BUILD/libdoubles.a" "$BUILD/libcore.a" -Wl,--end-group -o sweep -ldeflate -lzstd -ljansson -lz
compile turn.o "$BUILD/tests/crash/qcow2-data-file.o" -Wl,--start-group "$BUILD/libtest.a" \
	"$BUILD/libdoubles.a" "$BUILD/libcore.a" -Wl,--end-group -o sweep-data -ldeflate -lzstd -ljansson -lz
barriers=$(sed -n '/^enum barrier {/,/^};/p' "$TOP/lib/formats/qcow2/qcow2.h" | grep -c '	BARRIER_')

# With nothing left out it is the same sweep: fine.
SEED=1 ROUNDS=2 LEAVE_OUT=0 ./sweep
LEAVE_OUT=0 ./sweep-data
missed=
for n in $(seq 1 "$barriers"); do
	# The first seeds; what they do not show, others may.
	if LEAVE_OUT=$n ./sweep-data >out 2>&1 && LEAVE_OUT=$n ./sweep >out 2>&1; then
		missed="$missed $n"
	else
		grep -q '^FAILED: SEED=' out || { cat out; exit 1; }
		echo "barrier $n: $(tail -n 1 out)"
	fi
done
[ "$barriers" -ge 10 ]
[ -z "$missed" ] || { echo "not noticed when left out:$missed" >&2; exit 1; }
