#!/bin/bash
# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

# Run a command as root in the lab machine, which has a working /dev/kvm.
#
#   run.sh [--timeout S] [--share DIR] [--cpus N] [--mem MIB] [--dir LABDIR] -- CMD...
#
# The command sees this machine's files at the same paths; what it writes there
# is thrown away. DIR is mounted read-write at /mnt/share. The exit status is the
# command's; 124: out of time (default 600 s); 125: the lab machine itself failed
# (the end of its console is then printed). The environment and the working
# directory are passed on. Give it one CPU (default: 2) to run guests in it: with two,
# QEMU's emulation of SVM corrupts memory now and then. LAB_QEMU_ARGS holds further QEMU arguments.
set -euo pipefail

die() { echo "lab: $*" >&2; exit 125; }
usage="usage: run.sh [--timeout S] [--share DIR] [--cpus N] [--mem MIB] [--dir LABDIR] -- CMD..."

limit=600 share='' cpus=2 mem=3072 dir=target/lab
while [ $# -gt 0 ] && [ "$1" != -- ]; do
	case $1 in
	--timeout | --share | --cpus | --mem | --dir) [ $# -gt 1 ] || die "$1 needs a value" ;;&
	--timeout) limit=$2 ;;
	--share) share=$2 ;;
	--cpus) cpus=$2 ;;
	--mem) mem=$2 ;;
	--dir) dir=$2 ;;
	-h | --help) sed -n '6,/^set/{/^#/s/^# \?//p}' "$0"; exit ;;
	*) die "unknown option $1; $usage" ;;
	esac
	shift 2
done
[ $# -gt 1 ] || die "$usage"
shift
for f in vmlinux initramfs scratch version tcgfix.so; do
	[ -s "$dir/$f" ] || die "$dir/$f is missing: run build.sh${dir:+ $dir} first"
done
dir=$(cd "$dir" && pwd)
case $dir in *[[:space:],]*) die "no blanks or commas in the lab directory's path, please: $dir" ;; esac
[ -z "$share" ] || { [ -d "$share" ] || die "no directory $share"; share=$(cd "$share" && pwd); }
command -v qemu-system-x86_64 > /dev/null || die "no qemu-system-x86_64: run build.sh first"

run=$(mktemp -d /var/tmp/lab.XXXXXX)
qemu=
# Nothing outlives this script: not the emulator, not its files.
trap '[ -z "$qemu" ] || kill "$qemu" 2> /dev/null || true; rm -rf "$run"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

{
	export -p
	printf 'cd %q\nunset lab_run lab_dir lab_share\nexec' "$PWD"
	printf ' %q' "$@"
	echo
} > "$run/cmd"

# shellcheck disable=SC2054  # the commas are QEMU's
args=(
	-machine q35 -accel tcg,thread=multi -cpu max,+svm,+npt,la57=off,erms=off,fsrm=off -smp "$cpus" -m "$mem"
	-nodefaults -no-user-config -display none -no-reboot
	-kernel "$dir/vmlinux" -initrd "$dir/initramfs"
	-append "console=ttyS0 quiet norandmaps panic=-1 mitigations=off cryptomgr.notests lab_run=$run lab_dir=$dir ${share:+lab_share=1}"
	-serial "file:$run/console"
	-device virtio-serial-pci
	-chardev "file,id=out,path=/dev/stdout,append=on" -device virtserialport,chardev=out,name=out
	-chardev "file,id=err,path=/dev/stderr,append=on" -device virtserialport,chardev=err,name=err
	-chardev "file,id=status,path=$run/status" -device virtserialport,chardev=status,name=status
	-device virtio-rng-pci
	-drive "file=$dir/scratch,format=raw,if=virtio,snapshot=on,cache=unsafe"
	-fsdev local,id=root,path=/,security_model=none,readonly=on,multidevs=remap
	-device virtio-9p-pci,fsdev=root,mount_tag=lab.root
)
# shellcheck disable=SC2054
[ -z "$share" ] || args+=(
	-fsdev "local,id=share,path=${share//,/,,},security_model=none,multidevs=remap"
	-device virtio-9p-pci,fsdev=share,mount_tag=lab.share
)
# shellcheck disable=SC2086
TMPDIR=/var/tmp LD_PRELOAD="$dir/tcgfix.so" timeout -k 5 "$limit" qemu-system-x86_64 "${args[@]}" ${LAB_QEMU_ARGS-} \
	< /dev/null > >(cat) 2> >(cat >&2) &
qemu=$!
st=0
wait "$qemu" || st=$?
qemu=
[ ! -s "$run/status" ] || exit "$(cat "$run/status")"
case $st in
124 | 137) echo "lab: out of time ($limit s)" >&2; st=124 ;;
*) echo "lab: the lab machine stopped without a result (QEMU status $st)" >&2; st=125 ;;
esac
echo "lab: last lines of its console:" >&2
tail -n 40 "$run/console" >&2 2> /dev/null || true
exit $st
