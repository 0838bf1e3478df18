# $1 is 1 at an installation and more at an upgrade.
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || :
fi
# The one directory that the agent in Kubernetes may write: files in it are lists, within bounds.
# The agent runs in a container, and its user has a number alone. An owner that was changed stays.
lists=/etc/apifence/ranges.d/kubernetes
if [ ! -e "$lists" ]; then
    mkdir -p "${lists%/*}"
    mkdir -m 755 "$lists"
    chown 60843:60843 "$lists"
fi
if [ "$1" -eq 1 ]; then
    cat <<'TEXT'
apifence is installed. Nothing is attached, and every packet passes as before.
Next:
  apifence init                       # looks at this node, asks, and drops nothing yet
  systemctl enable --now apifence     # keeps it on, over reboots too
TEXT
fi
