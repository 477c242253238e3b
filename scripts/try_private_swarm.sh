#!/usr/bin/env bash
# Try a private swarm on several machines: network namespaces with addresses of their own, on this one.
# Needs root on Linux, iproute2, iptables, and an environment with this package and one for servers.
#
#   first    20.0.0.11    starts the swarm, blocks 0 and 1
#   second   20.0.0.12    block 2
#   home     192.168.7.2     block 3, behind the router, which forwards port 31337 to it
#   router   20.0.0.20 outside, 192.168.7.1 inside
#   client   20.0.0.13    asks a question
#
# bash scripts/try_private_swarm.sh [FOLDER FOR LOGS]
#
# PYTHON names the interpreter (python). STREET is the beginning of the addresses outside the home (20.0.0): public
# ones, since libp2p does not hand on those that are for documentation, such as 203.0.113.11; or private ones.
set -euo pipefail

python=${PYTHON:-python}
street=${STREET:-20.0.0}
logs=${1:-$(mktemp -d)}
machines="street first second router home client"
pids=()

tidy_up() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    for machine in $machines; do ip netns delete "try-$machine" 2>/dev/null || true; done
}
trap tidy_up EXIT

on() { # on MACHINE COMMAND...
    local machine=$1
    shift
    ip netns exec "try-$machine" "$@"
}

cable() { # cable MACHINE ADDRESS: to the switch in the street
    ip link add eth0 netns "try-$1" type veth peer name "to-$1" netns try-street
    on "$1" ip address add "$2/24" dev eth0
    on "$1" ip link set eth0 up
    on street ip link set "to-$1" master switch up
}

serve() { # serve MACHINE OPTIONS...; sets $peer to the address through which others join
    local machine=$1
    shift
    echo "$ langchain-petals server run $*        (on $machine)"
    rm -f "$logs/$machine.json"
    ip netns exec "try-$machine" "$python" -m langchain_petals server run --json "$@" \
        >"$logs/$machine.json" 2>"$logs/$machine.log" &
    pids+=($!)
    until [ -s "$logs/$machine.json" ] && grep -q '^}' "$logs/$machine.json"; do
        kill -0 "${pids[-1]}" || { cat "$logs/$machine.log"; exit 1; }
        sleep 0.2
    done
    "$python" -c 'import json, sys; print(json.load(open(sys.argv[1]))["join"])' "$logs/$machine.json"
    peer=$("$python" -c 'import json, sys; print(json.load(open(sys.argv[1]))["connection"]["initial_peers"][0])' \
        "$logs/$machine.json")
}

for machine in $machines; do
    ip netns add "try-$machine"
    on "$machine" ip link set lo up
done
on street ip link add switch type bridge
on street ip link set switch up
cable first $street.11
cable second $street.12
cable client $street.13
cable router $street.20
ip link add eth1 netns try-router type veth peer name eth0 netns try-home
on router ip address add 192.168.7.1/24 dev eth1
on router ip link set eth1 up
on home ip address add 192.168.7.2/24 dev eth0
on home ip link set eth0 up
on home ip route add default via 192.168.7.1
on router sysctl -qw net.ipv4.ip_forward=1
on router iptables -t nat -A POSTROUTING -o eth0 -j MASQUERADE
on router iptables -t nat -A PREROUTING -i eth0 -p tcp --dport 31337 -j DNAT --to-destination 192.168.7.2:31337
on router iptables -P FORWARD DROP # as a router at home: in comes only what is forwarded, or answers
on router iptables -A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED,DNAT -j ACCEPT
on router iptables -A FORWARD -i eth1 -j ACCEPT

serve first --new-swarm --port 31337 --blocks 0:2
first=$peer
serve second --initial-peers "$first" --port 31337 --blocks 2:3
serve home --initial-peers "$first" --port 31337 --announce $street.20 --blocks 3:4
home=$peer

echo "$ a program on client"
on client "$python" - "$first" <<'PROGRAM'
import sys
from langchain_petals import ChatPetals
from langchain_petals.swarm import BUNDLED_MODEL

chat = ChatPetals(model=BUNDLED_MODEL, initial_peers=[sys.argv[1]], temperature=0)
answer = chat.invoke("Who are you?")
print(answer.text)
PROGRAM
echo "$ the same through the server at home alone"
on client "$python" - "$home" <<'PROGRAM'
import sys
from langchain_petals import ChatPetals
from langchain_petals.swarm import BUNDLED_MODEL

chat = ChatPetals(model=BUNDLED_MODEL, initial_peers=[sys.argv[1]], temperature=0)
print(chat.invoke("Who are you?").text)
PROGRAM
echo "logs: $logs"
