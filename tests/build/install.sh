# SPDX-License-Identifier: GPL-2.0-or-later
# `make install` puts everything in its place, and a program builds and runs against what it put
# there, with the shared library and with the static one.
cd "$TOP" || exit 1
fail() { echo "$*"; exit 1; }
dest=$TMPDIR/dest
root=$dest/opt/imgkit
make -s --no-print-directory install PREFIX=/opt/imgkit DESTDIR="$dest" >/dev/null || fail "make install failed"
for f in bin/img include/imgkit.h lib/libimgkit.a lib/libimgkit.so lib/pkgconfig/imgkit.pc; do
	[ -s "$root/$f" ] || fail "$f was not installed"
done
[ "$(objdump -p "$root/lib/libimgkit.so" | awk '/SONAME/ { print $2 }')" = libimgkit.so.0 ] || fail "wrong soname"
[ "$("$root/bin/img" --version)" = "$(build/bin/img --version)" ] || fail "the installed img does not run"

# What programs can see is what the header declares, no more and no less.
declared=$(grep -oE '\bimgkit_\w+\(' include/imgkit.h | tr -d '(' | sort -u)
shared=$(nm -D --defined-only "$root/lib/libimgkit.so" | awk '$2 == "T" { sub("@.*", "", $3); print $3 }' | sort)
static=$(nm --defined-only --extern-only "$root/lib/libimgkit.a" | awk '$2 ~ /[A-Z]/ { print $3 }' | sort)
diff <(echo "$declared") <(echo "$shared") || fail "the shared library exports something else"
diff <(echo "$declared") <(echo "$static") || fail "the static library exports something else"

command -v pkg-config >/dev/null || { echo "no pkg-config"; exit 77; }
export PKG_CONFIG_PATH=$root/lib/pkgconfig PKG_CONFIG_SYSROOT_DIR=$dest
cd "$TMPDIR" || exit 1
"$IMG" create -q -f qcow2 old.qcow2 64M || exit 1
truncate -s 64M new.raw
printf 'something' | dd of=new.raw bs=1 seek=5000000 conv=notrunc status=none
for how in shared static; do
	mkdir $how
	for example in patch convert backup; do
		# shellcheck disable=SC2046 # words
		if [ $how = shared ]; then
			gcc -Wall -Werror -pthread "$TOP/examples/$example.c" -o $how/$example \
				$(pkg-config --cflags --libs imgkit)
		else
			gcc -Wall -Werror -pthread "$TOP/examples/$example.c" -o $how/$example \
				$(pkg-config --cflags imgkit) "$root/lib/libimgkit.a" \
				$(pkg-config --static --libs-only-l imgkit | sed 's/-limgkit//')
		fi || fail "$example does not build ($how)"
	done
done
export LD_LIBRARY_PATH=$root/lib
# How much depends on the block size of the file system here.
shared/patch new.raw old.qcow2 | grep -qE '^[0-9]{1,5} bytes written, 0 bytes zeroed$' ||
	fail "patch did something else"
[ "$(static/patch new.raw old.qcow2)" = "0 bytes written, 0 bytes zeroed" ] || fail "patch twice did something"
for how in shared static; do
	$how/convert old.qcow2 $how.raw raw 2>/dev/null || fail "convert failed ($how)"
	cmp new.raw $how.raw || fail "the converted image differs ($how)"
done
"$IMG" compare -q new.raw old.qcow2 || fail "the patched image differs"
# The first backup copies everything, the second what was written in between, the third nothing.
shared/backup old.qcow2 copy.qcow2 >/dev/null || fail "backup failed"
printf 'else' | dd of=new.raw bs=1 seek=9000000 conv=notrunc status=none
shared/patch new.raw old.qcow2 >/dev/null || fail "patch failed"
[ "$(static/backup old.qcow2 copy.qcow2)" = "65536 bytes copied" ] || fail "backup copied something else"
[ "$(shared/backup old.qcow2 copy.qcow2)" = "0 bytes copied" ] || fail "backup twice did something"
"$IMG" compare -q new.raw copy.qcow2 || fail "the backup differs"
# An error comes back as text, and nothing is left.
if shared/convert old.qcow2 new.qcow2 none 2>message; then fail "an unknown format was taken"; fi
[ ! -e new.qcow2 ] || fail "a file was left"
grep -q none message || fail "the message does not name the format"
