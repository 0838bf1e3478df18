# $1 is 1 at an installation and more at an upgrade.
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || :
fi
if [ "$1" -eq 1 ]; then
    cat <<'TEXT'
apifence is installed. Nothing is attached, and every packet passes as before.
Next:
  apifence init                       # looks at this node, asks, and drops nothing yet
  systemctl enable --now apifence     # keeps it on, over reboots too
TEXT
fi
