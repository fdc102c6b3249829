#!/bin/busybox sh
# The first process of the machine that tests/knfsd/run boots: a volume on a disk, the kernel's NFS server over it, a client of that, and
# the agent; then volumes whose projects have a quota, and one with a user whose quota is used up. Each promise is a line, "ok NAME" or "FAILED NAME: why"; the last line is "done".
/bin/busybox --install -s /bin
export PATH=/bin:/sbin:/usr/sbin:/usr/bin PURGECTL_ENDPOINT=unix:///run/agent.sock
mkdir -p /proc /sys /dev /run /tmp /srv /mnt /mnt3 /var/lib/nfs/v4recovery /var/lib/nfs/rpc_pipefs /etc /state
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mount -t tmpfs run /run
ln -s /run /var/run

finish() {
    echo done
    sync
    poweroff -f
}
fail() { echo "FAILED $*"; }
# NAME, and a command that must hold.
promise() {
    name=$1
    shift
    if "$@"; then echo "ok $name"; else fail "$name: $*"; fi
}

while read -r module; do
    insmod "$module" 2>/dev/null || echo "module $module is not loaded"
done </modules.list
ip link set lo up
mount -t ext4 -o noatime /dev/vda /srv || fail "mounting the volume"
echo "kernel $(uname -r)"

# ---- the server, and its client
mount -t nfsd nfsd /proc/fs/nfsd
printf 'root:x:0:0::/:/bin/sh\n_rpc:x:100:100::/:/bin/sh\n' >/etc/passwd
printf 'sunrpc 111/tcp portmapper\nsunrpc 111/udp portmapper\nnfs 2049/tcp\n' >/etc/services
printf 'portmapper 100000\nnfs 100003\nmountd 100005\n' >/etc/rpc
printf 'tcp 6 TCP\nudp 17 UDP\n' >/etc/protocols
printf 'tcp tpi_cots_ord v inet tcp - -\nudp tpi_clts v inet udp - -\ntcp6 tpi_cots_ord v inet6 tcp - -\nudp6 tpi_clts v inet6 udp - -\nlocal tpi_cots_ord - loopback - - -\n' >/etc/netconfig
: >/etc/exports
: >/var/lib/nfs/etab
: >/var/lib/nfs/rmtab
echo 10 >/proc/fs/nfsd/nfsv4leasetime
echo 10 >/proc/fs/nfsd/nfsv4gracetime
# As long as lockd's grace lasts, no client is given a delegation.
echo 3 >/proc/sys/fs/nfs/nlm_timeout
echo 3 >/proc/sys/fs/nfs/nlm_grace_period
# NFSv3 must be registered.
rpcbind -w -i -f 2>/tmp/rpcbind &
sleep 1
exportfs -o rw,no_root_squash,insecure,no_subtree_check,fsid=0 127.0.0.1:/srv
rpc.mountd -p 20048
rpc.nfsd -V 3 -V 4 -H 127.0.0.1 4
echo Y >/proc/fs/nfsd/v4_end_grace
# PLACE, SOURCE and OPTIONS of a mount without which nothing can be shown.
mounted() {
    mount.nfs "$2" "$1" -o "$3" && return
    cat /tmp/rpcbind
    fail "mounting $2 with $3"
    finish
}
mounted /mnt 127.0.0.1:/ vers=4.2,nolock,sec=sys
mounted /mnt3 127.0.0.1:/srv vers=3,nolock,proto=tcp,mountproto=tcp,mountport=20048,port=2049

# ---- the agent
cat >/agent.toml <<'CONFIG'
state_dir = "/state"
[listen]
unix = "/run/agent.sock"
[[volume]]
name = "v"
path = "/srv/d"
baseline = "mtime"
precision = "1s"
[[rule]]
name = "old"
volume = "v"
ttl = "1h"
clock = ["access"]
remove_empty_dirs = false
grace = "0s"
CONFIG
purge-agent run --config /agent.toml >/agent.log 2>&1 &
agent=$!
tracking() { purgectl status --output json 2>/dev/null | grep -q '"state": "tracking"'; }
n=0
until tracking; do
    n=$((n + 1))
    if [ $n -gt 60 ] || ! kill -0 $agent; then
        cat /agent.log
        fail "the agent is tracking"
        finish
    fi
    sleep 0.5
done

# Whether a file would go now.
new_plan() { purgectl plan --output json | sed -n 's/.*"plan_id": "\(.*\)".*/\1/p'; }
candidates() { purgectl show "$(new_plan)" --output ndjson; }
used() { ! candidates | grep -q "/srv/d/$1\""; }
count_expired() { candidates | grep -c '"path"'; }
last() { purgectl explain "/srv/d/$1" --output json | sed -n 's/.*"last_access": "\(.*\)".*/\1/p' | head -n 1; }
# How often the server was asked to open or to read (proc4ops: a count, then one for each operation; OPEN is 18, READ 25).
asked() { awk '/^proc4ops/ { print $(3 + 18) + $(3 + 25) }' /proc/net/rpc/nfsd; }
is() { [ "$1" = "$2" ]; }
later() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort | tail -n 1)" = "$2" ] && [ "$1" != "$2" ]; }

promise "all have expired at first" is "$(count_expired)" 60

# ---- listings are no use
ls -lR /mnt/d >/dev/null
ls -lR /mnt3/d >/dev/null
stat /mnt/d/f05 /mnt3/d/f06 >/dev/null
sleep 2
promise "a listing over v3 and v4 is no use" is "$(count_expired)" 60

# ---- reads and writes are
cat /mnt/d/f10 >/dev/null
cat /mnt3/d/f11 >/dev/null
echo more >>/mnt/d/f12
echo more >>/mnt3/d/f13
sync
sleep 2
promise "a read over v4 is a use" used f10
promise "a read over v3 is a use" used f11
promise "a write over v4 is a use" used f12
promise "a write over v3 is a use" used f13

# ---- a client comes back with a handle whose name the server has forgotten
exec 5</mnt3/d/f14 6>>/mnt3/d/f15
# Unused dentries and inodes: a client keeps what it has open by itself.
sync
echo 2 >/proc/sys/vm/drop_caches
echo 2 >/proc/sys/vm/drop_caches
cat <&5 >/dev/null
echo more >&6
exec 5<&- 6>&-
sync
sleep 2
promise "a read by a handle without a name is a use" used f14
promise "a write by a handle without a name is a use" used f15

# ---- what a client holds
exec 8</mnt/d/f20
cat /mnt/d/f21 >/dev/null
# As long as a client comes back to it, it keeps its delegation: opened and read, and the server is not asked.
while :; do cat /mnt/d/f21 >/dev/null; sleep 2; done &
reader=$!
sleep 4
cat /proc/fs/nfsd/clients/*/states | sed 's/^/states: /'
promise "a client has a delegation" grep -qs 'type: deleg' /proc/fs/nfsd/clients/*/states
before_asked=$(asked)
sleep 16
open_1=$(last f20) deleg_1=$(last f21)
sleep 17
open_2=$(last f20) deleg_2=$(last f21)
promise "the server was not asked meanwhile" is "$(asked)" "$before_asked"
promise "what a client holds open goes on being used ($open_1 $open_2)" later "$open_1" "$open_2"
promise "what a client has a delegation of goes on being used ($deleg_1 $deleg_2)" later "$deleg_1" "$deleg_2"

# ---- an apply: what is opened, or delegated, after the plan was made
plan=$(new_plan)
exec 7</mnt/d/f30
cat /mnt/d/f31 >/dev/null
cat /mnt3/d/f32 >/dev/null
# And one that comes to all the others at the very moment: it gets all of a file, or none of it.
(
    for f in /mnt/d/f4? /mnt3/d/f5?; do
        content=$(cat "$f" 2>/tmp/why) && code=0 || code=$?
        if [ $code = 0 ]; then
            [ "$content" = "what is in it" ] && echo whole || echo "torn $f: $content"
        else
            grep -qE 'No such file|Stale' /tmp/why && echo none || echo "torn $f: $(cat /tmp/why)"
        fi
    done >/tmp/reads
) &
comer=$!
purgectl apply "$plan" --yes --output json >/tmp/run
kill $reader
wait $comer
sed -n 's/^/run: /p' /tmp/run | tr -d '\n'
echo
echo "at the moment of the purge: $(sort /tmp/reads | uniq -c | tr '\n' ' ')"
promise "nothing was torn" is "$(grep -c torn /tmp/reads)" 0
for f in f10 f11 f12 f13 f14 f15 f20 f21 f30 f31 f32; do
    promise "$f, in use, is there" test -e /srv/d/$f
done
promise "an unused file is deleted" test ! -e /srv/d/f05
promise "a file held open is whole" is "$(cat <&7)" "what is in it"
grep -E '"level":"(ERROR|WARN)"' /agent.log | sed 's/^/log: /'
kill $agent
wait $agent

# ---- projects under a quota: asked of every file by a call that newer kernels have, or by what these have
files_of_projects() { purgectl usage --by project --volume "$1" --output ndjson | sed -n 's/.*"subject":"\([^"]*\)".*"files":\([0-9]*\).*/\1:\2/p' | sort | tr '\n' ' '; }
# VOLUME and the files of each project, before long.
soon() {
    n=0
    until [ "$(files_of_projects "$1")" = "$2" ]; do
        n=$((n + 1))
        [ $n -gt 60 ] && files_of_projects "$1" && return 1
        sleep 0.5
    done
}
start_again() {
    purge-agent run --config /projects.toml >>/projects.log 2>&1 &
    agent=$!
    n=0
    until tracking || [ $n -gt 60 ]; do
        n=$((n + 1))
        sleep 0.5
    done
}
{
    printf 'state_dir = "/state-of-projects"\n[listen]\nunix = "/run/agent.sock"\n'
    for fs in ext4 xfs; do
        printf '[[volume]]\nname = "%s"\npath = "/%s/d"\nbaseline = "mtime"\n' $fs $fs
    done
} >/projects.toml
disk=b
for fs in ext4 xfs; do
    mkdir /$fs
    mount -t $fs -o noatime,prjquota /dev/vd$disk /$fs || fail "mounting $fs with prjquota"
    disk=c
    mkdir -p /$fs/d/a /$fs/d/z/project
    for n in 1 2 3 4 5; do : >/$fs/d/a/f$n; done
    chattr -p 77 +P /$fs/d/z/project || fail "chattr on $fs"
    for n in 1 2 3; do : >/$fs/d/z/project/f$n; done
    # With an id of its own, outside.
    : >/$fs/d/a/of-another
    chattr -p 78 /$fs/d/a/of-another
done
start_again
for fs in ext4 xfs; do
    promise "$fs: projects are told apart" soon $fs "0:5 77:3 78:1 "
    mkdir /$fs/d/z/project/below
    : >/$fs/d/z/project/below/f
    echo more >/$fs/d/z/project/f1
    promise "$fs: what is new inherits its project, and what is written keeps it" soon $fs "0:5 77:4 78:1 "
done
kill $agent
wait $agent
start_again
for fs in ext4 xfs; do
    promise "$fs: and after a restart" soon $fs "0:5 77:4 78:1 "
done
grep -E '"level":"(ERROR|WARN)"' /projects.log | sed 's/^/log: /'
kill $agent

# ---- a user whose quota of inodes is used up: the kernel itself refuses what would be made for that user, and the files of others go.
# Quotas bind the agent as in its unit, which has no CAP_SYS_RESOURCE.
mkdir /quota
mount -t ext4 -o noatime,usrquota /dev/vdd /quota || fail "mounting ext4 with usrquota"
files_of() { ls "/quota/d/$1" | wc -l; }
of_user() {
    mkdir -p "/quota/d/$1"
    for n in $(seq 10 29); do
        echo old >"/quota/d/$1/f$n"
        touch -d "2020-01-01 00:00" "/quota/d/$1/f$n"
    done
    chown -R "$2" "/quota/d/$1"
}
cat >/quota.toml <<'CONFIG'
state_dir = "/state-of-quota"
[listen]
unix = "/run/agent.sock"
[[volume]]
name = "q"
path = "/quota/d"
baseline = "mtime"
[[rule]]
name = "later"
volume = "q"
ttl = "1h"
clock = ["access"]
grace = "1h"
remove_empty_dirs = false
[[rule]]
name = "now"
volume = "q"
ttl = "1h"
clock = ["access"]
remove_empty_dirs = false
CONFIG
for rule in now later; do
    rm -rf /state-of-quota
    of_user alice 1001
    of_user bob 1002
    # As many inodes as this user has.
    setquota -u 1001 0 0 0 21 /quota || fail "setquota"
    /usr/bin/setpriv --bounding-set=-sys_resource --inh-caps=-sys_resource purge-agent run --config /quota.toml >>/quota.log 2>&1 &
    agent=$!
    n=0
    until tracking || [ $n -gt 60 ]; do
        n=$((n + 1))
        sleep 0.5
    done
    purgectl apply --rule $rule --yes --output json >/quota.run 2>/quota.err
    promise "quota, rule $rule: the run is completed" grep -q '"state": *"completed"' /quota.run
    promise "quota, rule $rule: the files of others went" [ "$(files_of bob)" = 0 ]
    promise "quota, rule $rule: and so did those of the user" [ "$(files_of alice)" = 0 ]
    kill $agent
    wait $agent
done
# The kernel refused to charge one more directory to the user: it is root's in the trash, and is given back when files are restored.
owner_in_trash() { stat -c %u /quota/d/.purge-agent-trash/r*/f/"$1"; }
promise "quota: the kernel refused the user's directory in the trash" [ "$(owner_in_trash alice) $(owner_in_trash bob)" = "0 1002" ]
grep -E '"level":"(ERROR|WARN)"' /quota.log | sed 's/^/log: /'
finish
