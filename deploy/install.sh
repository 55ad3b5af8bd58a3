#!/bin/sh
# Installs or upgrades Fieldlab on an edge computer: Debian 12 or newer, Raspberry Pi OS (64 bit) of the same.
#
#   sudo deploy/install.sh                         install or upgrade from this checkout
#   sudo deploy/install.sh --wheels FOLDER         without a network; on a computer of the same kind that has one:
#                                                  pip wheel -c constraints.txt -w FOLDER '.[embedded,board]'
#   sudo deploy/install.sh --rollback              back to the release before
#   sudo deploy/install.sh --extras embedded,board what to install beside the agent (default: embedded,board)
#
# Each release has a folder of its own below /opt/fieldlab; `current` points to one. Agents that run are restarted one by
# one; if one does not come up again, all go back to the release before. Configurations and data are never touched.
set -eu

cd "$(dirname "$0")/.."
root="" wheels="" extras="embedded,board" rollback="" patience=60
usage() { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "$0"; exit "$1"; }
while [ $# -gt 0 ]; do
    case "$1" in
    --wheels) wheels=$(cd "${2:?}" && pwd); shift ;;
    --extras) extras=${2?}; shift ;;
    --rollback) rollback=1 ;;
    --root) root=${2:?}; shift ;;    # installs into a system that is not running, such as a card's
    --patience) patience=${2:?}; shift ;;
    -h | --help) usage 0 ;;
    *) echo "install.sh: unknown option $1" >&2; usage 2 >&2 ;;
    esac
    shift
done

say() { echo "fieldlab: $*"; }
die() { echo "fieldlab: $*" >&2; exit 1; }
inside() { if [ -n "$root" ]; then chroot "$root" "$@"; else "$@"; fi; }
running() { [ -z "$root" ] && [ -d /run/systemd/system ]; }
[ "$(id -u)" = 0 ] || die "needs root: sudo $0"
[ -z "$root" ] || [ -x "$root/bin/sh" ] || die "$root holds no system"

opt=$root/opt/fieldlab
agents() { systemctl list-units --plain --no-legend --state=active 'fieldlab-agent@*.service' | cut -d' ' -f1; }
active() { readlink "$opt/$1" 2>/dev/null || true; }
point() { ln -sfn "$2" "$opt/$1.new" && mv -T "$opt/$1.new" "$opt/$1"; }    # one rename: there is always one

restart_agents() {    # fails at the first that does not come up
    for unit in $(agents); do
        systemctl restart "$unit"
        waited=0
        until healthy "$unit"; do
            [ "$waited" -lt "$patience" ] || { say "$unit did not come up in $patience s"; return 1; }
            sleep 1
            waited=$((waited + 1))
        done
        say "restarted $unit"
    done
}

healthy() {    # the agent answers on its control socket; a source that is away is not the release's fault
    name=${1#fieldlab-agent@}
    status=$(inside "/opt/fieldlab/current/bin/fieldlab" status --json --config "/etc/fieldlab/${name%.service}/fieldlab.toml" 2>/dev/null || true)
    case "$status" in *'"uptime"'*) return 0 ;; *) return 1 ;; esac
}

go_back() {
    previous=$(active previous)
    [ -n "$previous" ] && [ -d "$opt/$previous" ] || die "there is no release to go back to"
    now=$(active current)
    point current "$previous"
    point previous "$now"
    say "back to ${previous#releases/}"
    if running; then restart_agents; fi
}

if [ -n "$rollback" ]; then go_back; exit; fi

# 1. What Debian has to give
if ! inside python3 -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    say "installing python3-venv"
    inside apt-get update -qq
    inside env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3 python3-venv
    inside python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "needs Python 3.11: Debian 12 or newer"
fi

# 2. The user, the folders, the unit
install -D -m 0644 deploy/systemd/fieldlab.sysusers.conf "$root/usr/lib/sysusers.d/fieldlab.conf"
install -D -m 0644 deploy/systemd/fieldlab.tmpfiles.conf "$root/usr/lib/tmpfiles.d/fieldlab.conf"
install -D -m 0644 "deploy/systemd/fieldlab-agent@.service" "$root/usr/lib/systemd/system/fieldlab-agent@.service"
systemd-sysusers ${root:+--root="$root"} fieldlab.conf
systemd-tmpfiles ${root:+--root="$root"} --create fieldlab.conf
if running; then systemctl daemon-reload; fi

# 3. The release, beside the others
version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
release=releases/$version-$(date -u +%Y%m%dT%H%M%SZ)
mkdir -p "$opt/$release"
trap 'rm -rf "${opt:?}/$release"; say "nothing was changed"' EXIT
inside python3 -m venv "/opt/fieldlab/$release"
parts=$opt/$release/parts there=/opt/fieldlab/$release/parts    # the same folder, as seen from inside
mkdir "$parts"
cp constraints.txt "$parts/"
set -- --quiet --disable-pip-version-check --no-cache-dir --constraint "$there/constraints.txt"
if [ -n "$wheels" ]; then
    cp -r "$wheels" "$parts/wheels"
    set -- "$@" --no-index --find-links "$there/wheels" "fieldlab[$extras]==$version"
else
    mkdir "$parts/source"
    cp -r pyproject.toml README.md LICENSE fieldlab edge ingest analytics simulators deploy board "$parts/source/"
    set -- "$@" "$there/source[$extras]"
fi
say "installing $version with $extras"
inside "/opt/fieldlab/$release/bin/pip" install "$@"
inside "/opt/fieldlab/$release/bin/fieldlab" --help >/dev/null
rm -rf "$parts"
trap - EXIT

# 4. The switch, and back if it does not hold
before=$(active current)
point current "$release"
[ -z "$before" ] || point previous "$before"
say "current is now ${release#releases/}"
if running && ! restart_agents; then
    [ -n "$before" ] || die "see: journalctl -u 'fieldlab-agent@*'"
    go_back
    die "the new release did not hold; the one before runs again. See: journalctl -u 'fieldlab-agent@*'"
fi

# 5. Only what may be needed stays
for old in "$opt"/releases/*; do
    case "$opt/$(active current) $opt/$(active previous)" in *"$old"*) ;; *) rm -rf "$old" ;; esac
done
say "next: put a configuration into /etc/fieldlab/NAME/fieldlab.toml, then systemctl enable --now fieldlab-agent@NAME"
