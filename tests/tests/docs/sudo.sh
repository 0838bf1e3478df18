#!/bin/sh
# Runs a command as it is: the tests are root. `-u USER` is for users that a page has made.
if [ "$1" = -u ]; then
    user=$2
    shift 2
    exec setpriv --reuid "$user" --regid "$user" --clear-groups "$@"
fi
exec "$@"
