# SPDX-License-Identifier: GPL-2.0-or-later
# Command lines of `img serve` that contradict themselves, or ask for what it does not do: nothing is
# opened, made or waited for.
refused() {
	img serve "$@" && echo "img serve $* did"
}
truncate -s 1M a b
ln -s "$IMG" qemu-nbd

refused
refused --port 0 --stdio a
refused --stdio a <a
refused --stdio a </dev/null
refused -p 70000 a
refused -p no-such-service a
refused -k s --size 0 a
refused -k s --export name=x,file=a,size=0
refused --stdio --run true a
refused --stdio --daemon a
refused --run true --daemon a
refused -x name -k s a b
refused -P 1 -k s --export name=x,file=a
refused -l snap -B bitmap -k s a
refused -k s a a
refused -k s --export name=x,file=a --export name=x,file=b
refused -k s --export name=x
refused -k s --export name=x,file=a,clients=0
refused -k s --export name=x,file=a,snapshot=s,bitmap=b
refused -k s --export name=x,file=a,colour=blue
refused -k s -U a
refused -k s -r -s a
refused -k s --discard=maybe a
refused -k s --detect-zeroes=unmap a
refused -k s --aio=io_uring a
refused -k s --image-opts -f raw driver=raw,file.filename=a
refused -k s -e -1 a
refused -k s --rate 0 a
refused -k s --fd 1 a
refused --fd 9 a
refused -k s --tls=on a
refused -k s --tls=maybe a
refused -k s --tls=off --tls-dir . a
refused -k s --tls-dir . --tls-psk keys a
refused -k s --tls-verify a
refused -k s --tls-dir . --tls-authz '*' a
refused -k s --tls-creds tls0 a
refused -k s --object tls-creds-x509,id=tls0,dir=. --tls-creds tls0 a
refused -k s --object tls-creds-x509,id=tls0,endpoint=server --tls-creds tls0 a
refused -k s --object tls-creds-psk,id=tls0,endpoint=server,dir=.,username=me --tls-creds tls0 a
refused -k s --object tls-creds-anon,id=tls0,endpoint=server --tls-creds tls0 a
refused -k s --object tls-creds-x509,dir=. a
refused -k s --object nothing,id=x a
refused -c /dev/nbd0 a
refused -d /dev/nbd0
refused -T 'nbd_*' a
refused -k s -P 1 a
refused -k s -o 2M a
refused -k s -B bitmap a
refused -k s missing
refused -k s --user nobody-of-this-name a
refused -k "$(printf '%0120d' 0)" a
./qemu-nbd -k s --tls-authz auth0 --object tls-creds-x509,id=t,endpoint=server,dir=. --tls-creds t a
./qemu-nbd --help | sed -n '1p; /^Exit/,$p'
ls
