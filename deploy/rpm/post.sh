# $1 is 1 at an installation and more at an upgrade.
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || :
fi
if [ "$1" -eq 1 ]; then
    cat <<'TEXT'
apifence is installed. Nothing is attached, and every packet passes as before.
Next: list who may reach the API server (the nodes of the cluster, too), then start:
  apifence ranges set 198.51.100.0/24,2001:db8:aa::/48
  systemctl enable --now apifence
TEXT
fi
