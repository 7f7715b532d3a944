# SPDX-License-Identifier: GPL-2.0-or-later
# Which exports there are, what they are called, which part of which disk they are, and who may write.
command -v nbdinfo >/dev/null || { echo "no nbdinfo"; exit 77; }
command -v sfdisk >/dev/null || { echo "no sfdisk"; exit 77; }
list() { # what nbdinfo says of each export, short
	# shellcheck disable=SC2016 # of the command's shell
	img serve "$@" --run 'nbdinfo --list --json "$uri"' | python3 -c '
import json, sys
for e in json.load(sys.stdin)["exports"]:
	print(repr(e["export-name"]), e["export-size"], "read-only" if e["is_read_only"] else "writable",
		"multi-conn" if e["can_multi_conn"] else "one connection",
		*e["contexts"], *([e["description"]] if "description" in e else []))'
}
truncate -s 16M a.raw
printf 'label: dos\n1M,2M\n4M,8M,5\n5M,1M\n' | sfdisk -q a.raw
img create -q -f qcow2 b.qcow2 4M
img snapshot -c first b.qcow2
img bitmap --add b.qcow2 dirty
cp b.qcow2 with@sign

echo "--- one has no name"
list a.raw
list -x name -D 'what it is' -A -r -f raw a.raw
list -e 1 b.qcow2
echo "--- several have those of their files"
list ./a.raw b.qcow2 with@sign
list -f qcow2 b.qcow2@first with@sign
echo "--- parts"
list -f raw -P 1 a.raw
list -f raw -P 5 -o 1000 --size 2000 a.raw
list -f raw -o 15M a.raw
echo "--- described one by one"
list --export name=all,file=a.raw,format=raw,read-only=on \
	--export name=five,file=a.raw,format=raw,partition=5,read-only=on \
	--export 'name=old,file=b.qcow2,snapshot=first,description=as it was,, once,allocation-depth=on' \
	--export name=now,file=b.qcow2,bitmap=dirty,read-only=on,clients=1
echo "--- bitmaps"
list -B dirty -r b.qcow2
echo "--- descriptions of images"
list --image-opts driver=raw,offset=1M,size=2M,file.filename=a.raw
echo "--- no disk of another server"
# shellcheck disable=SC2016
img serve -r -f raw --run 'img serve -r --run "echo not run" "$uri" 2>&1 | sed "s/socket=[^:]*/socket=PATH/"' a.raw
echo "--- locks: readers share, writers do not"
# shellcheck disable=SC2016
img serve -r -f raw --run 'img serve -r -f raw --run "nbdinfo --size \$uri" a.raw
	img serve -f raw --run "echo not run" a.raw || echo refused
	img serve -f raw -r -U --run "nbdinfo --size \$uri" a.raw' a.raw
img serve --export name=one,file=b.qcow2 --export name=two,file=b.qcow2 --run 'echo not run' || echo refused
