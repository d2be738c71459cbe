# Shared by the scripts of this module: how to find its own PostgreSQL, and no other.
# shellcheck shell=sh

# Folder of the data; as a pattern for find.
DATA=$DIR/data
pattern=$(printf %s "$DATA" | sed 's/[][*?\\]/\\&/g')

# Prints the processes of this module's server: those of its programs that work in its folder, and those that start_prim
# noted, which work in a folder that is mounted no more when replication has failed. A pid file of the data
# does not tell: it is replicated, so it may be of the other server, and name any process of this one.
members() {
    for process in $(working | sort -u); do
        program=$(readlink "/proc/$process/exe")
        program=${program##*/}
        case ${program% (deleted)} in
            postgres) echo "$process" ;;
        esac
    done
}

working() {
    find /proc/[0-9]*/cwd -maxdepth 0 -lname "$pattern" 2>/dev/null | cut -d/ -f3
    [ -r "$SAFEUSERVAR/noted" ] || return 0
    read -r this </proc/sys/kernel/random/boot_id
    while read -r boot number ticks; do
        [ "$boot" = "$this" ] || continue
        # Where it has ended, what is left of its session still keeps its number from others.
        now=$(started "$number")
        [ -z "$now" ] || [ "$now" = "$ticks" ] || continue
        pgrep -s "$number"
        pgrep -P "$number"
    done <"$SAFEUSERVAR/noted"
}

# When a process was started; nothing where there is none.
started() {
    read -r words 2>/dev/null <"/proc/$1/stat" || return 0
    # shellcheck disable=SC2086 # several words; what is before them is its name, which may have blanks
    set -- ${words##*) }
    echo "${20}"
}

# Is it there, other than as a process that has ended?
lives() {
    read -r words 2>/dev/null <"/proc/$1/stat" || return 1
    words=${words##*) }
    [ "${words%% *}" != Z ]
}

# note PID...: leaders of their sessions, by which all that they start is found.
note() {
    read -r this </proc/sys/kernel/random/boot_id
    for number in "$@"; do
        echo "$this $number $(started "$number")"
    done >"$SAFEUSERVAR/noted"
}

# wait_end SECONDS: succeeds as soon as nothing of it runs any more, fails after that time.
wait_end() {
    left=$(($1 * 5))
    while [ -n "$(members)" ]; do
        [ "$left" -gt 0 ] || return 1
        left=$((left - 1))
        sleep 0.2
    done
}

# Ends all of it now; fails when something outlives that for 10 s.
kill_all() {
    tries=50
    while pids=$(members | tr '\n' ' ') && [ -n "$pids" ]; do
        [ "$tries" -gt 0 ] || return 1
        [ "$tries" -lt 50 ] || echo "is killed: $pids"
        tries=$((tries - 1))
        # shellcheck disable=SC2086 # several numbers
        kill -KILL $pids 2>/dev/null
        sleep 0.2
    done
}

# Data of its own is made only where there was surely none: in an empty folder, on a server that never
# had any. Else a file system that is not mounted would look like a first start.
may_begin() {
    rest=$(find "$DIR" -mindepth 1 -maxdepth 1 ! -name lost+found ! -name '.holdfast*' ! -name data.new)
    if [ -n "$rest" ]; then
        echo "$DIR has no data of PostgreSQL in data/, and is not empty: $rest" >&2
        return 1
    fi
    if [ -e "$SAFEUSERVAR/had-data" ]; then
        echo "$DIR is empty, and this server had data there: is its file system mounted?" >&2
        echo "To begin anew all the same, remove $SAFEUSERVAR/had-data" >&2
        return 1
    fi
}

# The same user may have another number on the other server, whose files these are after a takeover.
own_data() {
    [ "$(stat -c %u "$DATA")" = "$(id -u "$user")" ] && return 0
    echo "$user has another number here than on the other server: all files get a new owner"
    chown -R "$user:" "$DATA"
}

# Runs a command as the user of the database, without any other right.
as_user() {
    (become "$@")
}

# The same in the place of this shell.
become() {
    cd / && HOME=/ exec setpriv --reuid="$user" --regid="$(id -g "$user")" --init-groups -- "$@"
}

user=postgres

# Sets pid to the main process; fails when it does not run. Its pid file is asked first, which may lie.
master() {
    pid=
    read -r pid 2>/dev/null <"$DATA/postmaster.pid" || return 1
    members | grep -qx -- "$pid"
}

# Sets now to the seconds since the server was switched on, a clock that nobody sets.
seconds() {
    read -r now words </proc/uptime
    now=${now%.*}
}

# Does its pid file say that it accepts connections? That stands in the last line.
says_ready() {
    state=
    while read -r line; do
        state=$line
    done 2>/dev/null <"$DATA/postmaster.pid"
    [ "$state" = ready ]
}

# Does it accept connections? Asked as the user that it knows: each look would else be an error in its log.
answers() {
    as_user "$bin/pg_isready" -h "$SOCKETS" -p "$PORT" -U "$user" -d postgres -t 3
}

# Sets version and bin: the version that the data is of, and its programs; the newest, where there is no data.
programs() {
    if read -r version 2>/dev/null <"$DATA/PG_VERSION"; then
        bin=/usr/pgsql-$version/bin
        [ -x "$bin/postgres" ] || bin=/usr/lib/postgresql/$version/bin
        what="$version is"
    else
        bin=$(ls -d /usr/lib/postgresql/*/bin /usr/pgsql-*/bin 2>/dev/null | sort -V | tail -n 1)
        what='is'
    fi
    [ -x "$bin/postgres" ] && return 0
    echo "PostgreSQL $what not installed on this server (Debian, Ubuntu: apt install postgresql)" >&2
    return 1
}
