# $1 is 1 at an installation and more at an upgrade.
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || :
fi
# The agent in Kubernetes writes only to this directory. Its files are lists, within bounds.
# The agent runs in a container under a numeric user id. An existing directory keeps its owner.
lists=/etc/apifence/ranges.d/kubernetes
if [ ! -e "$lists" ]; then
    mkdir -p "${lists%/*}"
    mkdir -m 755 "$lists"
    chown 60843:60843 "$lists"
fi
if [ "$1" -eq 1 ]; then
    cat <<'TEXT'
apifence is installed. No filter is attached yet: every packet passes as before.
Next:
  apifence init                       # examines this node, asks, and starts in monitor mode
  systemctl enable --now apifence     # keeps the filter on, also after a reboot
TEXT
fi
