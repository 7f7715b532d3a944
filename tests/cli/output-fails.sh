# SPDX-License-Identifier: GPL-2.0-or-later
# Output that cannot be written is an error, with a message.
img create -q -f qcow2 disk.qcow2 1M
for command in "info" "info --output=json" "map" "snapshot -l --output=json" "map --output=json"; do
	read -ra words <<< "$command"
	img "${words[@]}" disk.qcow2 > /dev/full
	echo "exit $?"
done
img --help > /dev/full
echo "exit $?"
img --completion-data > /dev/full
echo "exit $?"
# A reader that goes away: not a silent death by SIGPIPE.
exec 3> >(exec true)
wait $!
img info disk.qcow2 >&3
echo "exit $?"
