#!/usr/bin/env bash
# Tries the README's commands on fresh machines: bare Debian systems in folders, a new user, no caches.
#
#   sudo tests/fresh_machines.sh FOLDER [ROUND...]
#
# The last commit is tried, not the working tree. Needs debootstrap, the network, 8 GB in FOLDER and
# about 20 minutes a round. Prints what each round took; what it said is in FOLDER/ROUND.log.
set -euo pipefail

ROUNDS=(debian-13 debian-13-zip debian-sid)
project="$(cd "$(dirname "$0")/.." && pwd)"

# debian-13: as it comes, without python3-venv, which Debian keeps apart from Python.
# debian-13-zip: the project as a ZIP, on a machine without git.
# debian-sid: the development branch, with the newest Python.
round() {
  case "$1" in
    debian-13) machine trixie git; tries clone 'make run' 'make run' 'make test' ;;
    debian-13-zip) machine trixie python3-venv; tries unpack 'make run' 'make run' '! make tables' ;;
    debian-sid) machine sid git,python3-venv; tries clone 'make run' 'make run' 'make test' ;;
    *) echo "error: no round $1; there are: ${ROUNDS[*]}" >&2; exit 1 ;;
  esac
}

machine() {
  local mounted
  debootstrap --variant=minbase --include="ca-certificates,make,python3,$2" "$1" "$root" >"$log"
  mount -t proc proc "$root/proc"
  for mounted in dev sys; do
    # A slave: taking it away takes nothing away from this machine.
    mount --rbind "/$mounted" "$root/$mounted"
    mount --make-rslave "$root/$mounted"
  done
  # The registries are reached the way that this machine reaches them.
  cp /etc/resolv.conf "$root/etc/resolv.conf"
  cp -r /etc/ssl/certs/. "$root/etc/ssl/certs"
  chroot "$root" useradd --create-home someone
}

# shellcheck disable=SC2317 # called by its name in `tries`
clone() {
  git clone --quiet "$project" "$1"
}

# shellcheck disable=SC2317
unpack() {
  mkdir "$1"
  git -C "$project" archive HEAD | tar -x -C "$1"
}

# tries HOW COMMAND...: brings the project in, into a path with a space, and runs the commands there.
tries() {
  "$1" "$root/home/someone/my projects"
  chroot "$root" chown -R someone: /home/someone
  local command started
  for command in "${@:2}"; do
    started=$SECONDS
    if in_it "cd 'my projects' && $command" >>"$log" 2>&1 </dev/null; then
      echo "$name: $command: $((SECONDS - started)) s"
    else
      echo "$name: $command: FAILED after $((SECONDS - started)) s; see $log"
      tail -n 20 "$log"
      return 1
    fi
  done
  echo "$name: $(in_it "'my projects/.venv/bin/python' --version")," \
    "$(grep -E '[0-9]+ passed' "$log" | tail -n 1)"
}

in_it() {
  env -i TERM=dumb PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot "$root" su --login someone --command "$1"
}

remove() {
  local mounted
  for mounted in proc dev sys; do
    mountpoint -q "$root/$mounted" && umount --recursive --lazy "$root/$mounted"
  done
  rm -rf --one-file-system "$root"
}

folder="$(mkdir -p "${1:?a folder for the machines}" && cd "$1" && pwd)"
shift
failed=0
for name in "${@:-${ROUNDS[@]}}"; do
  root="$folder/$name" log="$folder/$name.log"
  trap remove EXIT
  # Not `round || ...`, with which bash ignores the failures inside.
  (round "$name") &
  wait $! || failed=1
  remove
done
exit $failed
