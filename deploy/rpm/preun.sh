# $1 is 0 at a removal and 1 at an upgrade.
if [ "$1" -eq 0 ]; then
    if [ -d /run/systemd/system ]; then
        systemctl --quiet disable --now apifence || :
    fi
    if [ -d /sys/fs/bpf/apifence ]; then
        cat <<'TEXT'
apifence: the filter stays on: only listed sources pass.
To remove it: rm -r /sys/fs/bpf/apifence
TEXT
    fi
fi
