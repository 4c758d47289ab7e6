#!/bin/bash
# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

# Type-check, lint or link the current Cargo workspace for x86_64-unknown-illumos
# on a Debian machine whose rustup cannot add targets. `docs/development.md` tells how it works.
#
#   check.sh [--setup | --check | --clippy | --link | --report FILE...] [cargo arguments...]
#
# Environment:
#   ILLUMOS_TOOLCHAIN      cache directory     (default: <target dir>/illumos-toolchain)
#   ILLUMOS_COMPILER       host | debian       (default: host, debian when host's source is gone)
#   ILLUMOS_ALLOW_PRIVATE  1: --link and --report tolerate private illumos interfaces
#   DEBIAN_MIRROR, DEBIAN_SECURITY_MIRROR      (default: what this machine's apt uses)
set -Eeuo pipefail
trap 'echo "illumos-check: error: line $LINENO: $BASH_COMMAND" >&2' ERR

TRIPLE=x86_64-unknown-illumos
HERE=$(cd "$(dirname "$0")" && pwd)
die() { echo "illumos-check: error: $*" >&2; exit 1; }
say() { echo "illumos-check: $*" >&2; }
need() { command -v "$1" >/dev/null || die "'$1' not found: $2"; }

# ---------------------------------------------------------------- symbol report
# Every undefined symbol of a linked file carries the library version it was bound to.
# Fails on private versions: those may change under a deployed binary without notice.
report() {
  local f bad=0
  for f in "$@"; do
    say "symbols of $f"
    readelf -W -d "$f" | sed -n 's/.*(NEEDED).*\[\(.*\)\].*/\1/p' | paste -sd' ' | sed 's/^/  needs: /'
    readelf -W --dyn-syms "$f" | awk -v allow="${ILLUMOS_ALLOW_PRIVATE:-}" '
      $7=="UND" && $8!="" { split($8, p, "@"); n++
        if (p[2]=="") { if ($5!="WEAK") { print "  UNBOUND: " p[1]; bad=1 } }
        else if (p[2] ~ /private/) { print "  PRIVATE: " p[1] " (" p[2] ")"; if (!allow) bad=1 }
        else if (match(p[2], /^ILLUMOS_0\./)) { v=substr(p[2], RLENGTH+1)+0
          if ($5=="WEAK") w=w " " p[1] "@" v; else if (v>max) { max=v; who=p[1] } else if (v==max) who=who " " p[1] } }
      END { printf "  %d imported symbols; newest version needed: ILLUMOS_0.%d (%s)\n", n, max, who
        if (w!="") print "  optional (weak):" w
        exit bad }' || bad=1
  done
  [ $bad = 0 ] || die "unresolved or private illumos interfaces used (ILLUMOS_ALLOW_PRIVATE=1 tolerates the private ones)"
}

mode=check
case ${1:-} in
  --setup|--check|--clippy|--link) mode=${1#--}; shift ;;
  --report) shift; report "$@"; exit ;;
  -h|--help) sed -n '6,15s/^# \{0,1\}//p' "$0"; exit ;;
esac

need cargo "install the Rust toolchain"; need rustc "install the Rust toolchain"
need cc "apt-get install gcc"; need ar "apt-get install binutils"
root=$(cargo locate-project --workspace --message-format plain 2>/dev/null) || die "not inside a Cargo workspace"
root=$(dirname "$root")
T=${ILLUMOS_TOOLCHAIN:-${CARGO_TARGET_DIR:-$root/target}/illumos-toolchain}
mkdir -p "$T"; T=$(cd "$T" && pwd)
case $T in *[[:space:]]*) die "the cache path must not contain spaces: $T" ;; esac

# ---------------------------------------------------------------- packages
# A private apt: own sources, lists and cache; the system's state is only read.
apt_() {
  local cmd=$1; shift
  "$cmd" -qq -o Dir::Etc::sourcelist="$W/sources.list" -o Dir::Etc::sourceparts=/dev/null \
    -o Dir::State::lists="$W/lists" -o Dir::Cache="$W/cache" -o APT::Sandbox::User= -o Debug::NoLocking=1 \
    -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false \
    -o APT::Install-Recommends=0 -o APT::Update::Error-Mode=any -o Acquire::Retries=3 "$@"
}
use_suites() { # "mirror suite" ...
  local s; mkdir -p "$W/lists/partial" "$W/cache/archives/partial"; : > "$W/sources.list"
  for s; do echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $s main" >> "$W/sources.list"; done
  apt_ apt-get update >&2
}
mirrors() {
  need apt-get "this script prepares its toolchain from Debian packages"; need dpkg-deb "apt-get install dpkg"
  local list; list=$(grep -hv '^[[:space:]]*#' /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | grep -oE '[a-z]+://[^] ]+' | sed 's|/*$|/|' || true)
  M=$("$HERE/../mirror.sh")/
  S=${DEBIAN_SECURITY_MIRROR:-$(grep -m1 '/debian-security/$' <<<"$list" || true)}
  [ -n "$S" ] || die "no security mirror in apt's sources: set DEBIAN_SECURITY_MIRROR"
  codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
}
library_from() { # deb, destination: unpack only the standard library's source
  mkdir -p "$2"
  dpkg-deb --fsys-tarfile "$1" | tar -x -C "$2" --strip-components=5 --wildcards './usr/src/rustc-*/library/*'
}

# (a) the standard library's source for exactly this machine's rustc
fetch_source() {
  local rel=$1 suite found
  for suite in "$M trixie-backports" "$S $codename-security" "$M forky" "$M sid"; do
    use_suites "$suite" || continue
    found=$(apt_ apt-cache madison rust-src rust-web-src 2>/dev/null | tr -d ' ' | awk -F'|' -v r="$rel+" 'index($2, r)==1 && !n++ {print $1 "=" $2}')
    [ -n "$found" ] || continue
    say "downloading $found (${suite##* })"
    (cd "$W" && apt_ apt-get download "$found") && library_from "$W"/rust*src_*.deb "$W/library" && return
  done
  return 1
}
# (b) otherwise Debian's own newer compiler with its source, in a private prefix
fetch_compiler() {
  say "taking Debian's rustc-web and its source instead of rustc $1"
  use_suites "$M $codename" "$S $codename-security" || die "cannot read the Debian mirrors $M and $S"
  apt_ apt-get --yes --download-only install rustc-web rust-web-clippy >&2 || die "$codename and its security suite do not offer rustc-web"
  (cd "$W/cache/archives" && apt_ apt-get download rust-web-src)
  library_from "$W"/cache/archives/rust-web-src_*.deb "$W/library"; rm "$W"/cache/archives/rust-web-src_*.deb
  rm -rf "$T/debian"; mkdir -p "$T/debian/bin"
  local d b; for d in "$W"/cache/archives/*.deb; do dpkg-deb -x "$d" "$T/debian"; done
  rm -rf "$T/debian/usr/share"
  for b in rustc clippy-driver; do # wrappers which find the private shared libraries
    printf '#!/bin/sh\nexport LD_LIBRARY_PATH=%s/debian/usr/lib/x86_64-linux-gnu\nexec %s/debian/usr/bin/%s "$@"\n' "$T" "$T" "$b" > "$T/debian/bin/$b"
    chmod +x "$T/debian/bin/$b"
  done
}

# ---------------------------------------------------------------- standard library
build_std() { # compile the standard library from $W/library into $T/sysroot
  local L=$W/library lib=$T/sysroot/lib/rustlib/$TRIPLE/lib
  sed -i 's/^crate-type = .*dylib.*/crate-type = ["rlib"]/' "$L/std/Cargo.toml" # no shared libstd
  say "building the standard library for $TRIPLE"
  (cd "$L" && env -u RUSTC_WRAPPER -u RUSTC_WORKSPACE_WRAPPER -u CARGO_ENCODED_RUSTFLAGS -u CARGO_BUILD_TARGET \
     RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zforce-unstable-if-unmarked -Cembed-bitcode=no" \
     CARGO_TARGET_DIR="$W/std" __CARGO_DEFAULT_LIB_METADATA=illumos-std CARGO_PROFILE_RELEASE_DEBUG=0 \
     cargo -q -Zavoid-dev-deps build --offline --release -p sysroot --features panic-unwind,backtrace --target $TRIPLE \
       --config 'source.crates-io.replace-with="vendored"' --config "source.vendored.directory=\"$L/vendor\"") \
    || die "the standard library did not compile (see above)"
  rm -rf "$T/sysroot"; mkdir -p "$lib"
  cp "$W/std/$TRIPLE/release/deps/"*.rlib "$lib/"; rm -f "$lib"/libsysroot-*
}

pick_compiler() { # use Debian's compiler when that is what the sysroot was built with
  if [ -x "$T/debian/bin/rustc" ]; then export RUSTC=$T/debian/bin/rustc; fi
}
setup() {
  exec 9>"$T/.lock"; flock 9
  local want; want="1 $(rustc -Vv | sed -n 's/^commit-hash: //p') ${ILLUMOS_COMPILER:-host}"
  if [ "$(cat "$T/ready" 2>/dev/null)" = "$want" ]; then pick_compiler; flock -u 9; return; fi
  local rel; rel=$(rustc -V | cut -d' ' -f2)
  rm -rf "$T/ready" "$T/work" "$T/debian"; W=$T/work; mkdir -p "$W"; mirrors
  if [ "${ILLUMOS_COMPILER:-host}" = debian ] || ! fetch_source "$rel"; then fetch_compiler "$rel"; fi
  pick_compiler
  build_std
  rm -rf "$W"; echo "$want" > "$T/ready"; flock -u 9
  say "ready: $(${RUSTC:-rustc} -V), $(du -sh "$T" | cut -f1) in $T"
}

# ---------------------------------------------------------------- linking
# Stub libraries hold the names and versions in abi.txt and nothing else.
make_stubs() {
  local abi=$HERE/abi.txt D=$T/link so
  [ -r "$abi" ] || die "$abi is missing: --link needs it"
  need ld "apt-get install binutils"; need as "apt-get install binutils"
  [ "$D/ready" -nt "$abi" ] && [ "$D/ready" -nt "$0" ] && return
  rm -rf "$D"; mkdir -p "$D"
  for so in $(cut -d' ' -f1 "$abi" | sort -u); do
    awk -v so="$so" -v s="$D/x.s" -v v="$D/x.ver" '
      $1==so { l=""; for (i=3; i<=NF; i++) { printf "\t.globl \"%s\"\n\t.type \"%s\",@function\n\"%s\":\n", $i, $i, $i > s; l=l " \"" $i "\";" }
               print $2 " { global:" l " };" > v }
      END { print "\tret" > s }' "$abi"
    as --64 -o "$D/x.o" "$D/x.s"
    ld -m elf_x86_64 -shared -soname "$so" --hash-style=sysv -z noexecstack --version-script "$D/x.ver" -o "$D/$so" "$D/x.o"
    ln -s "$so" "$D/${so%%.so*}.so"
  done
  ln -s librt.so.1 "$D/libposix4.so"; rm "$D"/x.*
  # Entry point after the System V AMD64 psABI, 3.4.1: argc, argv and envp on the stack, %rdx to run at exit.
  as --64 -o "$D/crt1.o" - <<'S'
	.globl _start
_start:	xorl %ebp, %ebp
	movq (%rsp), %r12
	leaq 8(%rsp), %r13
	leaq 8(%r13,%r12,8), %r14
	andq $-16, %rsp
	movq environ@GOTPCREL(%rip), %rax
	movq %r14, (%rax)
	movq %rdx, %rdi
	testq %rdi, %rdi
	jz 1f
	call atexit@PLT
1:	movq %r12, %rdi
	movq %r13, %rsi
	movq %r14, %rdx
	call main@PLT
	movl %eax, %edi
	call exit@PLT
	hlt
S
  cat > "$D/illumos-cc" <<W
#!/bin/bash
# rustc's cc-style arguments -> GNU ld and the stub libraries
D=$D
W
  cat >> "$D/illumos-cc" <<'W'
a=() exe=1 out=a.out
while [ $# -gt 0 ]; do
  case $1 in
    -m64|-std=*|-nodefaultlibs|-no-pie|-g|-O*|-Wl,-M,*) ;;
    -o) out=$2; a+=(-o "$2"); shift ;;
    -shared) exe=; a+=(-shared) ;;
    -Wl,-z,ignore) a+=(--as-needed) ;;
    -Wl,-z,record) a+=(--no-as-needed) ;;
    -Wl,*) IFS=, read -ra x <<<"${1#-Wl,}"; a+=("${x[@]}") ;;
    *) a+=("$1") ;;
  esac
  shift
done
[ -z "$exe" ] || a=(-dynamic-linker /usr/lib/amd64/ld.so.1 "$D/crt1.o" "${a[@]}")
ld -m elf_x86_64 -nostdlib -L"$D" --hash-style=sysv --eh-frame-hdr --no-undefined -z norelro -z noexecstack "${a[@]}" || exit
printf '\006' | dd of="$out" bs=1 seek=7 conv=notrunc status=none # ELF OS/ABI: Solaris
W
  chmod +x "$D/illumos-cc"; touch "$D/ready"
}

# ---------------------------------------------------------------- run
setup
[ "$mode" != setup ] || exit 0

if [ -n "${RUSTFLAGS:-}" ]; then export RUSTFLAGS="$RUSTFLAGS --sysroot=$T/sysroot" # RUSTFLAGS would hide the other
else export CARGO_TARGET_X86_64_UNKNOWN_ILLUMOS_RUSTFLAGS="${CARGO_TARGET_X86_64_UNKNOWN_ILLUMOS_RUSTFLAGS:+$CARGO_TARGET_X86_64_UNKNOWN_ILLUMOS_RUSTFLAGS }--sysroot=$T/sysroot"; fi
# Build scripts which compile C get this machine's compiler: right for a check, never for a release.
export CC_x86_64_unknown_illumos=${CC_x86_64_unknown_illumos:-cc} CXX_x86_64_unknown_illumos=${CXX_x86_64_unknown_illumos:-c++}
export AR_x86_64_unknown_illumos=${AR_x86_64_unknown_illumos:-ar} CFLAGS_x86_64_unknown_illumos=${CFLAGS_x86_64_unknown_illumos:--D_GNU_SOURCE}

case $mode in
  check) exec cargo check --target $TRIPLE "$@" ;;
  clippy)
    if [ -z "${RUSTC:-}" ]; then exec cargo clippy --target $TRIPLE "$@"; fi
    pre=() ; while [ $# -gt 0 ] && [ "$1" != -- ]; do pre+=("$1"); shift; done; [ $# -eq 0 ] || shift
    post=; for x in "$@"; do post+="${x}__CLIPPY_HACKERY__"; done
    CLIPPY_ARGS=$post RUSTC_WORKSPACE_WRAPPER=$T/debian/bin/clippy-driver exec cargo check --target $TRIPLE "${pre[@]}" ;;
  link)
    make_stubs
    export CARGO_TARGET_X86_64_UNKNOWN_ILLUMOS_LINKER=$T/link/illumos-cc
    list=$T/link/built
    cargo build --target $TRIPLE --message-format json-render-diagnostics "$@" > "$list"
    mapfile -t files < <(sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' "$list" | sort -u)
    [ ${#files[@]} -gt 0 ] || { say "linked nothing: no executables in this build"; exit 0; }
    report "${files[@]}" ;;
esac
