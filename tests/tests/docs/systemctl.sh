#!/bin/bash
# Starts and ends `apifence run` as systemd does with the unit. Nothing else is a service here.
[[ " $* " == *" apifence "* || $1 == daemon-reload ]] || {
    echo "systemctl: there is no such service here: $*" >&2
    exit 5
}
pid() { cat "$SERVICE/pid" 2>/dev/null; }
alive() { [ -n "$(pid)" ] && kill -0 "$(pid)" 2>/dev/null; }
start() {
    alive && return
    mkdir -p "$SERVICE" /run/apifence
    rm -f /run/apifence/state.json
    env -u SUDO_USER -u SUDO_UID -u SSH_CONNECTION setsid apifence run >"$SERVICE/log" 2>&1 </dev/null &
    echo $! >"$SERVICE/pid"
    # It ends with the tests, however they end.
    setsid bash -c 'tail --pid="$1" -f /dev/null; kill "$2"' bash "$HARNESS" "$!" >/dev/null 2>&1 </dev/null &
    for _ in {1..400}; do
        grep -q '"guarded":true' /run/apifence/state.json 2>/dev/null && return
        sleep 0.05
    done
    cat "$SERVICE/log" >&2
    exit 1
}
stop() {
    alive || return 0
    kill "$(pid)"
    for _ in {1..400}; do
        alive || return 0
        sleep 0.05
    done
    exit 1
}
case "$1" in
daemon-reload) ;;
start) start ;;
enable) [[ $* == *--now* ]] && start || true ;;
stop) stop ;;
disable) [[ $* == *--now* ]] && stop || true ;;
restart) stop && start ;;
reload) kill -HUP "$(pid)" && sleep 0.5 ;;
is-active) alive && echo active ;;
*)
    echo "systemctl: \`$1\` is not run here" >&2
    exit 1
    ;;
esac
