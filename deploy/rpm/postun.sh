# $1 is 0 at a removal and 1 at an upgrade: then `run` restarts and takes the filter over.
if [ "$1" -ge 1 ] && [ -d /run/systemd/system ]; then
    systemctl try-restart apifence || :
fi
