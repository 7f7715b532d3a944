# SPDX-License-Identifier: GPL-2.0-or-later
# edit: the new text has the old file's owner, mode and attributes; nothing is written in vain.
. "$TOP/tests/lib/guest.sh"
export TMPDIR=$PWD/tmp
mkdir -p tmp tree/etc/abs && printf 'one\ntwo\n' > tree/etc/conf && printf 'no newline' > tree/etc/end
ln -s ../conf tree/etc/abs/rel && ln -s /etc/abs/rel tree/etc/chain && ln -s loop tree/loop
mkfifo tree/pipe && touch tree/etc/empty
make_ext tree fs 16M
printf '%s\n' 'sif /etc/conf mode 0104640' 'sif /etc/conf uid 1000' 'sif /etc/conf gid 70000' \
	'ea_set /etc/conf user.note kept' 'ln /etc/end /etc/other' 'sif /etc/end links_count 2' |
	debugfs -w -f - fs > /dev/null 2>&1
sound fs
# What other programs say is their affair; nothing stays behind.
edit() {
	echo "img edit $*"
	img edit --isolation=process "$@" 2>&1 |
		sed -E '/^sed:/d; /^no-such/d; /^sh:/d; s/imgkit-edit-[A-Za-z0-9]+/imgkit-edit-X/; '"s,$PWD,,"
	echo "exit ${PIPESTATUS[0]}"
	ls -A tmp
}
inode() { ext "stat $1" fs | sed -n 's/^Inode: \([0-9]*\).*/\1/p'; }

echo "-- by sed, through links, with a backup"
before=$(inode /etc/conf)
edit -b .old -e s/one/ONE/ -e s/two/TWO/ fs:/etc/chain
ext "cat /etc/conf" fs
ext "cat /etc/conf.old" fs
state /etc/conf fs
state /etc/conf.old fs
ext "ea_get /etc/conf user.note" fs
[ "$(inode /etc/conf.old)" = "$before" ] || echo "the backup is another file"
state /etc/chain fs
echo "-- once more: the backup is replaced"
edit -b .old -E -e 's/(ONE)|x+/1/' fs:/etc/conf
ext "cat /etc/conf" fs
ext "cat /etc/conf.old" fs
list /etc fs
sound fs

echo "-- nothing changes: nothing is written"
sha256sum fs > sum
edit -b .never -e s/nothing/else/ fs:/etc/conf
edit -e 's/[/x/' fs:/etc/conf
EDITOR=true edit fs:/etc/conf
EDITOR=false edit fs:/etc/conf
EDITOR='printf x >> "$1"; exit 3;' edit fs:/etc/conf
EDITOR='kill -9 $$;' edit fs:/etc/conf
EDITOR=no-such-editor edit fs:/etc/conf
EDITOR='rm' edit fs:/etc/conf
EDITOR='ln -sf /etc/passwd' edit fs:/etc/conf
edit fs:/etc fs:/pipe fs:/loop fs:/gone
edit -b a/b fs:/etc/conf
edit -E fs:/etc/conf
sha256sum --quiet -c sum

echo "-- by an editor: its copy is private, and has the file's name"
cat > editor << 'END'
stat -c '%a %n' "$2" "${2%/*}" | sed 's/imgkit-edit-.*/&/; s/[A-Za-z0-9]*\(\/conf\)*$/X\1/' | sed "s,$TMPDIR,,"
echo "$1" > "$2.new" && mv "$2.new" "$2" && touch "${2%/*}/left~"
END
EDITOR=false VISUAL="sh $PWD/editor changed" edit fs:/etc/conf
ext "cat /etc/conf" fs
echo "-- other names of the file; no end of line; empty files"
edit -e s/no/a/ fs:/etc/end
ext "cat /etc/end" fs | od -c
ext "cat /etc/other" fs; echo
VISUAL='printf "%s" text >' edit fs:/etc/empty
ext "cat /etc/empty" fs; echo
VISUAL='printf "" >' edit fs:/etc/empty
state /etc/empty fs
list /etc fs
sound fs
