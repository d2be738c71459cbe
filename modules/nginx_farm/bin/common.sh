# Shared by the scripts of this module: how to find its own nginx, and no other.
# shellcheck shell=sh

conf=$SAFEUSERVAR/nginx.conf
pid_file=$SAFEUSERVAR/nginx.pid
pid=

# Sets pid to the process of this module's nginx master, and title to its command line; fails when
# there is none. After a reboot the pid file may name another program, so the process must have been
# started with our configuration.
master() {
    title=
    [ -s "$pid_file" ] && read -r pid <"$pid_file" || return 1
    title=$(tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline")
    case $title in
        *"-c $conf "*) return 0 ;;
        *) return 1 ;;
    esac
}

# Prints the processes of this module's nginx; fails when there is none. Workers whose master was
# killed go on serving: they are found by its process group, whose number the kernel gives to no one
# else while they live. A dead process has no title, a zombie has an empty one.
members() {
    master || { [ -n "$pid" ] && [ -z "$title" ]; } || return 1
    pgrep -g "$pid" -f '^nginx: '
}

# wait_end SECONDS: succeeds as soon as nothing of this module's nginx is left, fails after that time.
wait_end() {
    left=$(($1 * 5))
    while members >/dev/null; do
        [ "$left" -gt 0 ] || return 1
        left=$((left - 1))
        sleep 0.2
    done
}

# The unprivileged user that workers run as: the distribution's own where there is one.
worker_user() {
    for user in www-data nginx nobody; do
        if id -u "$user" >/dev/null 2>&1; then
            echo "$user"
            return
        fi
    done
}
