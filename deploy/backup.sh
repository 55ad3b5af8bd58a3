#!/bin/sh
# Saves and restores an agent: its configuration, secrets, certificates, journal, limits and embedded store.
#
#   sudo deploy/backup.sh save line-3 /mnt/backup          writes /mnt/backup/fieldlab-line-3-TIME.tar.gz
#   sudo deploy/backup.sh restore line-3 FILE              what is there now is kept beside it, as NAME.before-TIME
#
# The agent is stopped for as long as the copy takes, and started again if it ran: broker and servers keep what comes
# meanwhile, as in any restart. The file holds secrets: only its owner may read it.
set -eu
umask 077
root=""
if [ "${1:-}" = --root ]; then root=$2; shift 2; fi
command=${1:-} name=${2:-} what=${3:-}
die() { echo "fieldlab: $*" >&2; exit "${code:-1}"; }
case "$command" in save | restore) ;; *) code=2 die "usage: backup.sh save NAME FOLDER, or backup.sh restore NAME FILE" ;; esac
case "$name" in "" | */* | .*) code=2 die "name the agent, as in fieldlab-agent@NAME" ;; esac
[ -n "$what" ] || { code=2; die "name the folder or file of the backup"; }

unit=fieldlab-agent@$name.service
now=$(date -u +%Y%m%dT%H%M%SZ)
etc=etc/fieldlab/$name var=var/lib/fieldlab/$name
ran=""
start_again() { [ -z "$ran" ] || systemctl start "$unit"; }
if [ -z "$root" ] && systemctl is-active --quiet "$unit" 2>/dev/null; then
    ran=1
    trap start_again EXIT
    systemctl stop "$unit"
fi

if [ "$command" = save ]; then
    [ -f "$root/$etc/fieldlab.toml" ] || die "there is no agent $name: $root/$etc/fieldlab.toml is missing"
    [ -d "$what" ] || die "$what is no folder"
    [ ! -S "$root/$var/agent.sock" ] || ! fuser -s "$root/$var/agent.sock" 2>/dev/null || die "$name still runs: stop it first"
    file=$what/fieldlab-$name-$now.tar.gz
    set -- "$etc"
    [ ! -d "$root/$var" ] || set -- "$@" "$var"
    tar -C "${root:-/}" -czf "$file.part" --exclude='*.sock' "$@"
    gzip -t "$file.part"
    mv "$file.part" "$file"
    sync "$file"
    echo "saved $name to $file ($(du -h "$file" | cut -f1))"
else
    gzip -t "$what" || die "$what is damaged"
    tar -tzf "$what" | grep -q "^$etc/fieldlab.toml$" || die "$what is no backup of $name"
    for folder in "$etc" "$var"; do
        [ ! -e "$root/$folder" ] || mv "$root/$folder" "$root/$folder.before-$now"
    done
    tar -C "${root:-/}" -xpzf "$what"
    echo "restored $name; what was there is in $etc.before-$now and $var.before-$now, if anything was"
fi
