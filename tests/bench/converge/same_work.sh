#!/bin/sh
# What a second rollout finds out about one host, as a plain script over one ssh connection: the yardstick for what
# Ansible costs.  It only looks; a rollout would also repair, explain, and work on a host that was never seen before.
#
#   same_work.sh record   prints what is there now, to be compared with later
#   same_work.sh compare  takes that on its standard input; ends with 0 when nothing differs
set -eu

look() {
    # Every file that a role wrote, with owner and mode; the directories of models and engines by their entries.
    find /etc/bedplate /etc/sysusers.d /etc/tmpfiles.d /usr/local/libexec/bedplate \
        /etc/systemd/system/bedplate-*.service /etc/systemd/system/bedplate-*.service.d -type f -print0 |
        sort -z | xargs -0 sha256sum
    find /etc/bedplate /usr/local/libexec/bedplate -printf '%p %U:%G %m\n' | sort
    find /var/lib/bedplate/models /var/lib/bedplate/gateway -type f -printf '%p %s %T@\n' | sort
    ls -d /var/lib/bedplate/engines/*
    nft list table inet bedplate | sed 's/packets [0-9]* bytes [0-9]*//'
    systemctl show --property Id,ActiveState,UnitFileState,NeedDaemonReload,MainPID \
        bedplate-firewall.service bedplate-gateway.service bedplate-vllm.service
    systemd-analyze security --no-pager bedplate-vllm.service | tail -n 1
    ss --no-header --listening --tcp --numeric | awk '{print $4}' | sort
    uname -r
    df --output=target / /var/lib/bedplate
    socket=/run/bedplate-vllm/api.sock
    model=$(curl --silent --fail --unix-socket "$socket" http://engine/v1/models | python3 -c 'import json, sys
print(json.load(sys.stdin)["data"][0]["id"])')
    echo "$model"
    curl --silent --fail --unix-socket "$socket" http://engine/v1/completions -H 'Content-Type: application/json' \
        -d "{\"model\": \"$model\", \"prompt\": \"Hello\", \"max_tokens\": 1}" | grep -o '"completion_tokens":[0-9]*'
}

case $1 in
    record) look ;;
    compare)
        found=$(mktemp)
        trap 'rm -f "$found"' EXIT
        look >"$found"
        diff - "$found" >&2
        ;;
esac
