# Makes the new root of a sandbox and starts its program in it. Runs as the first process of new mount, process, IPC,
# host name and cgroup namespaces. Every value is an argument and is never evaluated.
set -eu
path=${PATH-/usr/bin:/bin}
PATH=/usr/sbin:/usr/bin:/sbin:/bin
scaffold=$1 start=$2 shared=$3 uid=$4 gid=$5
shift 5

mount -t tmpfs -o mode=755,nosuid,nodev lap "$scaffold"
root=$scaffold

# Starting programs is what takes the time here, so it is done where nothing else will do.
folder() { [ -d "$1" ] || mkdir -p "$1"; }

show() {
    if [ -d "$1" ]; then folder "$2"; else folder "${2%/*}"; [ -e "$2" ] || : >"$2"; fi
    mount --bind -o "$3" "$1" "$2"
}

while [ "$1" != -- ]; do
    verb=$1 from=$2 at=$root$3
    shift 3
    case $verb in
    ro) show "$from" "$at" ro,nosuid,nodev ;;
    rw) show "$from" "$at" rw,nosuid,nodev ;;
    copy) folder "${at%/*}"; cat "$from" >"$at" ;;
    link) folder "${at%/*}"; ln -s "$from" "$at" ;;
    folder) folder "$at" ;;
    cover) mount -t tmpfs -o mode=755,nosuid,nodev lap "$at" ;;
    esac
done
shift

mkdir "$root/proc" "$root/.old" "$root/dev" "$root/dev/pts" "$root/dev/shm"
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
for device in null zero full random urandom tty; do
    : >"$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,nosuid,noexec devpts "$root/dev/pts"
mount -t tmpfs -o "mode=1777,nosuid,nodev,size=$shared" lap "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s fd/0 "$root/dev/stdin"
ln -s fd/1 "$root/dev/stdout"
ln -s fd/2 "$root/dev/stderr"
ln -s /proc/self/fd "$root/dev/fd"

cd "$root"
pivot_root . .old
umount -l /.old
rmdir /.old
mount -o remount,bind,ro,nosuid,nodev /
cd "$start"
export PATH="$path"
unset OLDPWD
if [ -n "$uid" ]; then
    exec unshare --user --map-user="$uid" --map-group="$gid" -- "$@"
fi
exec "$@"
