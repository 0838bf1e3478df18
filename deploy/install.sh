#!/bin/sh
# Installs or removes apifence, from the directory of its tarball. Does not attach or start it.
#   ./install.sh               install below /usr/local, and an example config in /etc/apifence
#   ./install.sh --uninstall   remove the installed files; an attached filter stays on
#   --root DIR                 use DIR as the root of the file system
set -eu

root=
action=install
while [ $# -gt 0 ]; do
    case $1 in
        --root) root=${2:?"--root needs a directory"}; shift 2 ;;
        --uninstall) action=uninstall; shift ;;
        -h | --help) sed -n '2,5s/^# *//p' "$0"; exit 0 ;;
        *) echo "error: unknown option \`$1\`" >&2; echo "hint: $0 --help" >&2; exit 2 ;;
    esac
done

# Prints a command, then runs it.
run() {
    echo "  $*"
    "$@"
}

cd "$(dirname "$0")"
prefix=$root/usr/local
bin=$prefix/bin
units=$prefix/lib/systemd/system
feeds=$prefix/lib/apifence
man=$prefix/share/man
doc=$prefix/share/doc/apifence
bash=$prefix/share/bash-completion/completions
zsh=$prefix/share/zsh/site-functions
fish=$prefix/share/fish/vendor_completions.d

if [ "$action" = uninstall ]; then
    if [ -z "$root" ] && [ -d /run/systemd/system ] && systemctl --quiet is-active apifence; then
        run systemctl disable --now apifence
    fi
    run rm -f "$bin/apifence" "$units/apifence.service" "$bash/apifence" "$zsh/_apifence" \
        "$fish/apifence.fish" "$man/man1/apifence.1" "$man"/man1/apifence-*.1 \
        "$man/man5/apifence.toml.5" "$man/man5/apifence-ranges.5"
    run rm -f "$units/apifence-feed@.service" "$units/apifence-feed@.timer"
    run rm -rf "$doc" "$feeds"
    echo "$root/etc/apifence and $root/var/lib/apifence are kept."
    if [ -z "$root" ] && [ -d /sys/fs/bpf/apifence ]; then
        echo "The filter stays on. To remove it: rm -r /sys/fs/bpf/apifence"
    fi
    exit
fi

# Checksums of the files in the tarball.
sha256sum --quiet -c SUMS || {
    echo "error: install apifence: the files next to $0 differ from the release" >&2
    echo "hint: unpack the tarball again; nothing installed" >&2
    exit 3
}
./apifence --version >/dev/null || {
    echo "error: install apifence: this machine ($(uname -m)) cannot run this binary" >&2
    echo "hint: download the tarball for its architecture" >&2
    exit 3
}
echo "Installing $(./apifence --version):"
# install(1) creates a new file, so a running process keeps the old one.
run install -D -m 755 apifence "$bin/apifence"
run install -D -m 644 apifence.service "$units/apifence.service"
run install -D -m 644 -t "$man/man1" man/*.1
run install -D -m 644 -t "$man/man5" man/*.5
run install -D -m 644 completions/apifence.bash "$bash/apifence"
run install -D -m 644 -t "$zsh" completions/_apifence
run install -D -m 644 -t "$fish" completions/apifence.fish
run install -D -m 644 -t "$doc" README.md CHANGELOG.md LICENSE-MIT LICENSE-APACHE LICENSE-GPL2 \
    apifence.rules.yml grafana-dashboard.json
run install -D -m 755 feeds/apifence-feed "$feeds/apifence-feed"
for unit in feeds/apifence-feed@.service feeds/apifence-feed@.timer; do
    run install -D -m 644 "$unit" "$units/${unit##*/}"
done
run sed -i "s|/usr/lib/apifence/|${feeds#"$root"}/|" "$units/apifence-feed@.service"
run install -D -m 644 -t "$doc/feeds" feeds/recipes/*
(cd kubernetes && find . -type f) | while read -r file; do
    install -D -m 644 "kubernetes/$file" "$doc/kubernetes/$file"
done
echo "  $doc/kubernetes: manifests"
run install -D -m 644 kubelet.conf "$doc/kubelet.service.d/apifence.conf"
if [ -e "$root/etc/apifence/apifence.toml" ]; then
    echo "  $root/etc/apifence/apifence.toml exists: not changed"
else
    run install -D -m 644 apifence.toml "$root/etc/apifence/apifence.toml"
fi
# The agent in Kubernetes writes only to this directory. Its files are lists, within bounds.
# The agent runs in a container under a numeric user id. An existing directory keeps its owner.
lists=$root/etc/apifence/ranges.d/kubernetes
if [ ! -e "$lists" ]; then
    if [ "$(id -u)" -eq 0 ]; then
        run install -d -m 755 "${lists%/*}"
        run install -d -m 755 -o 60843 -g 60843 "$lists"
    else
        echo "  $lists: skipped, because only root can give it to user 60843"
    fi
fi
if [ -z "$root" ] && [ -d /run/systemd/system ]; then
    run systemctl daemon-reload
fi
cat <<'TEXT'
No filter is attached yet: every packet passes as before.
Next:
  apifence init                       # examines this node, asks, and starts in monitor mode
  systemctl enable --now apifence     # keeps the filter on, also after a reboot
TEXT
