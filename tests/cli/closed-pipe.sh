# SPDX-License-Identifier: GPL-2.0-or-later
# A reader that has seen enough: no hang, no crash, an exit code that says so.
head -c 4M /dev/zero | tr '\0' a > disk.raw
img create -q -f qcow2 -o cluster_size=512 many.qcow2 4M
img convert -n -O qcow2 disk.raw many.qcow2
run() {
	"$@" 2> errors | head -c 1 > /dev/null
	code=${PIPESTATUS[0]}
	case $code in 0) echo "done" ;; 1|141) echo "stopped" ;; *) echo "exit $code: $(cat errors)" ;; esac
}
run img convert -O raw --output=- disk.raw
run img convert -O qcow2 --output=- disk.raw
run img convert -c -O qcow2 --output=- disk.raw
run img convert --progress=json -O raw --output=- disk.raw
for _ in 1 2 3; do
	img info many.qcow2 | head -n 1
	img --help | head -n 1
	img convert --help | head -n 1
done
# Nobody reads at all: whether that is noticed depends on who is faster.
img map --output=json many.qcow2 2> /dev/null | true
test "${PIPESTATUS[0]}" -le 1 && echo fine
