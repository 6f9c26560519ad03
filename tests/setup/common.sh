# Shared by the setup scripts: where test tools are kept, and how a missing system package is met.
#
# Everything fetched for the tests lives in one cache directory outside the checkout, so that a
# second checkout, or a clean one, starts without the network. A thing that is there is never
# fetched again: each script writes a stamp that holds what it was asked for, last of all, so that an
# interrupted run is started over and a changed list of versions is noticed.
#
# Scripts print their result (a path, a class path) alone on standard output; all else goes to
# standard error, so that `$(tests/setup/zookeeper)` is safe to use.

VIVARIUM_TEST_CACHE="${VIVARIUM_TEST_CACHE:-${HOME:?set HOME or VIVARIUM_TEST_CACHE}/.cache/vivarium-tests}"
mkdir -p "$VIVARIUM_TEST_CACHE"
VIVARIUM_TEST_CACHE="$(cd "$VIVARIUM_TEST_CACHE" && pwd)"

say() { printf 'setup: %s\n' "$*" >&2; }
die() { printf 'setup: error: %s\n' "$*" >&2; exit 1; }

# Holds the cache for the rest of the calling script: two test runs at once must not fetch into the
# same directory.
lock_cache() {
    exec 9>"$VIVARIUM_TEST_CACHE/lock"
    if ! flock -w 2 9; then
        say "waiting for another run that is setting up $VIVARIUM_TEST_CACHE"
        flock -w 1800 9 || die "another run has held $VIVARIUM_TEST_CACHE/lock for 30 minutes; end it and try again"
    fi
}

# apt_install WHY PACKAGE...: installs Debian packages, or says what to install where it cannot.
apt_install() {
    local why="$1"; shift
    if ! command -v apt-get >/dev/null; then
        die "$why: please install the equivalent of these Debian packages and try again: $*"
    fi
    if [ "$(id -u)" != 0 ]; then
        die "$why: please run 'sudo apt-get install $*' and try again"
    fi
    say "$why: installing $* with apt-get"
    local log="$VIVARIUM_TEST_CACHE/apt.log"
    if ! { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; } >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        die "apt-get could not install $*; the whole output is in $log"
    fi
}

# stamp_is FILE TEXT: true when FILE holds exactly TEXT.
stamp_is() { [ -f "$1" ] && [ "$(cat "$1")" = "$2" ]; }
