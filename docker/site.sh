#!/bin/sh
# Make what the federation of compose.yaml needs: a CA, the broker's folder, and for each member an
# identity and a configuration. Members that are there already are left as they are, so a line can be
# added to the list below and this run again.
# Usage: sh docker/site.sh [SITE]    (docker/site)
#
# EDGECHOIR is the command (edgechoir), BUNDLE the model (that of the demo), FEDERATION its name,
# HOSTS further names or addresses of the broker, for devices on other machines. PASSPHRASE_FILE has
# the CA's passphrase; without it one is made.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
site=${1:-$here/site}
edgechoir=${EDGECHOIR:-edgechoir}
federation=${FEDERATION:-choir}
bundle=${BUNDLE:-$here/../models/digits/bundle}

# TIER MEMBER PARENT PARENT-TIER, as in compose.yaml. A sum takes three devices at least and two members.
members() {
    cat <<'MEMBERS'
cloud cloud - -
edge-cloud edge-1 cloud cloud
node node-1 edge-1 edge-cloud
node node-2 edge-1 edge-cloud
node node-3 cloud cloud
device dev-01 node-1 node
device dev-02 node-1 node
device dev-03 node-1 node
device dev-04 node-2 node
device dev-05 node-2 node
device dev-06 node-2 node
device dev-07 node-3 node
device dev-08 node-3 node
device dev-09 node-3 node
device dev-10 node-3 node
monitor eye - -
MEMBERS
}

umask 077
mkdir -p "$site/members"
site=$(cd "$site" && pwd)
passphrase=${PASSPHRASE_FILE:-$site/passphrase}
if [ ! -e "$passphrase" ]; then
    od -An -tx1 -N16 /dev/urandom | tr -d ' \n' >"$passphrase"
    echo >>"$passphrase"
    echo "site: made a passphrase for the CA in $passphrase"
fi
if [ ! -e "$site/ca/ca.key" ]; then
    $edgechoir ca init "$site/ca" --federation "$federation" --passphrase-file "$passphrase"
    set --
    for host in ${HOSTS:-}; do set -- "$@" --host "$host"; done
    $edgechoir ca broker "$site/ca" --host broker --host localhost "$@" --passphrase-file "$passphrase"
    $edgechoir ca policy "$site/ca" --passphrase-file "$passphrase"
fi
if [ ! -e "$site/bundle" ]; then
    $edgechoir bundle verify "$bundle" >/dev/null
    cp -R "$bundle" "$site/bundle"
fi

# set_key FILE KEY VALUE: set a key that `edgechoir init` has written, also one behind '#'.
set_key() { sed -i "s|^\(# \)\{0,1\}$2 = .*|$2 = $3|" "$1"; }

members | while read -r tier member parent parent_tier; do
    home=$site/members/$member
    config=$home/config.toml
    [ ! -e "$config" ] || continue
    [ -e "$home/identity/member.crt" ] || $edgechoir enrol "$home/identity" --federation "$federation" \
        --tier "$tier" --member "$member" --ca "$site/ca" --passphrase-file "$passphrase"
    set --
    [ "$parent" = - ] || set -- --parent "$parent" --parent-tier "$parent_tier"
    $edgechoir init "$tier" "$member" --federation "$federation" --broker broker --bundle /bundle \
        "$@" --output "$config" >/dev/null
    set_key "$config" state '"/var/lib/edgechoir/state"'
    children=$(members | awk -v us="$member" '$3 == us && $2 != "dev-10"' | wc -l)
    [ "$children" -eq 0 ] || set_key "$config" expected_members "$children"
    case $member in
    cloud) set_key "$config" pause_s 5.0 ;;
    dev-10) set_key "$config" enabled false ;; # its image has no torch
    esac
done

# Containers run as whoever owns the site, but never as root.
user=$(id -u):$(id -g)
if [ "$(id -u)" = 0 ]; then
    user=10001:10001
    chown -R "$user" "$site/members" "$site/bundle" "$site/ca/broker"
    chmod 711 "$site" "$site/ca" "$site/members"
fi
cat >"$site/env" <<ENV
EDGECHOIR_SITE=$site
EDGECHOIR_USER=$user
ENV
echo "site: $(ls "$site/members" | wc -l) members in $site. Give each device its samples or its sensor"
echo "site: (members/dev-*/config.toml), then: docker compose --env-file $site/env -f $here/compose.yaml up -d"
echo "site: keep $site/ca and $passphrase off line; nothing that runs needs more of it than ca/broker"
