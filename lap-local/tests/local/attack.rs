//! What a hostile program reaches from inside. Without walls the same attacks succeed, which shows that they are ones.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::site;
use crate::support::{Mode, Site, is_alive, up};
use lap_core::runtime::SandboxRuntime;

const GRACE: Duration = Duration::from_secs(10);
/// Written so that the script that looks for it does not hold it.
const CANARY: &str = "lap-canary-5b1f";
const PATTERN: &str = "lap-[c]anary-5b1f";

/// Reads everything that it should not see. Changes nothing outside, so it can also be run without walls.
const READING: &str = r#"
found() { grep -qs "$PATTERN" && echo "LEAK $1"; }
cat "$DATA/database" 2>/dev/null | found database
cat "$DATA/master-key" 2>/dev/null | found key
cat "$DATA/vault/state" 2>/dev/null | found vault
cat "$OTHER/workspace/secret" 2>/dev/null | found neighbour
cat "$OUTSIDE/secret" 2>/dev/null | found home
cat /proc/1/root/"$DATA/database" /proc/self/root/"$DATA/database" 2>/dev/null | found root-link
ln -sf "$DATA" link; cat link/database 2>/dev/null | found symlink
cat ../../../database ../../database 2>/dev/null | found parent
for process in /proc/[0-9]*; do
    tr '\0' '\n' <"$process/environ" 2>/dev/null
    tr '\0' '\n' <"$process/cmdline" 2>/dev/null
    cat "$process/cwd/secret" 2>/dev/null
done | found process
unshare -Urm sh -c 'cat "$1/database"; umount -l "$1"; umount -l /; cat "$1/database"' - "$DATA" 2>/dev/null | found userns
grep -rs -D skip "$PATTERN" $PLACES 2>/dev/null | found anywhere
"#;

/// Everything but what the system itself brings, which would take minutes.
const EVERYWHERE: &str = "/root /home /var /run /srv /mnt /media /opt /etc /tmp /dev/shm /work";

/// Tries to change what is not its own. Only for the inside of walls.
const WRITING: &str = r#"
did() { "$@" >/dev/null 2>&1 && echo "LEAK $*"; }
for place in / /usr /usr/bin /etc /bin /lib /proc/sys/kernel /dev /root /var; do did touch "$place/lap-attack"; done
did sh -c 'echo x >/etc/passwd'
did sh -c 'echo x >/proc/sys/kernel/core_pattern'
did sh -c 'echo h >/proc/sysrq-trigger'
did sh -c 'echo -1000 >/proc/1/oom_score_adj'
did test -r /etc/shadow
did test -r /etc/gshadow
did sh -c 'ls /dev/mem /dev/kmsg /dev/vda /dev/sda'
did mount -t tmpfs none /mnt
did mount -o remount,rw /
did mount -o remount,bind,rw /usr
did umount -l /proc
did mknod disk b 254 0
did chroot / true
did nsenter -t 1 -m true
did unshare -m true
did unshare -Urm sh -c 'mount -o remount,bind,rw /usr && touch /usr/lap-attack'
did unshare -Urm sh -c 'mount -o remount,rw / && touch /lap-attack'
did unshare -Urmpf sh -c 'mount -t proc proc /proc && echo x >/proc/sys/kernel/core_pattern'
did unshare -Urm sh -c 'mknod disk b 254 0 && head -c 1 disk'
did su -c true
did sh -c 'grep -q "^CapEff:.*[1-9a-f]" /proc/self/status'
did sh -c '[ "$(ls -d /proc/[0-9]* | wc -l)" -gt 12 ]'
echo FINISHED
"#;

const KILLING: &str = r#"
kill -9 "$BYSTANDER" 2>/dev/null
echo FINISHED
"#;

struct Scene {
    site: Site,
    outside: tempfile::TempDir,
    bystander: Child,
}

impl Scene {
    fn new(site: Site) -> Self {
        let data = site.data.path().canonicalize().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::create_dir_all(data.join("vault")).unwrap();
        let secrets = ["database", "master-key", "vault/state"].map(|name| data.join(name));
        for path in secrets.iter().chain([&outside.path().join("secret")]) {
            fs::write(path, CANARY).unwrap();
        }
        let bystander = Command::new("sleep")
            .arg("1007")
            .env("SECRET", CANARY)
            .current_dir(outside.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            site,
            outside,
            bystander,
        }
    }

    /// What the script says that it could do.
    async fn attack(&self, script: &str) -> BTreeSet<String> {
        let runtime = self.site.runtime().await;
        let neighbour = self.site.spec("");
        up(&runtime, &neighbour).await;
        let other = self.site.folder(neighbour.sandbox);
        fs::write(other.join("workspace/secret"), CANARY).unwrap();
        let mut spec = self.site.spec("script");
        let data = self.site.data.path().canonicalize().unwrap();
        let shown = |path: &Path| path.display().to_string();
        // Without walls there may be very much everywhere, and it is found where it is known to be as well.
        let places = match self.site.mode {
            Mode::Unisolated => "$DATA".to_owned(),
            _ => format!("$DATA {EVERYWHERE}"),
        };
        let script = format!(
            "PATTERN='{PATTERN}' DATA='{}' OTHER='{}' OUTSIDE='{}' BYSTANDER={}\nPLACES=\"{places}\"\n{script}",
            shown(&data),
            shown(&other),
            shown(self.outside.path()),
            self.bystander.id()
        );
        spec.env.insert("SCRIPT".to_owned(), script);
        up(&runtime, &spec).await;
        let said = fs::read_to_string(self.site.folder(spec.sandbox).join("state/said")).unwrap();
        runtime.stop(spec.sandbox, GRACE).await.unwrap();
        runtime.stop(neighbour.sandbox, GRACE).await.unwrap();
        said.lines().map(str::to_owned).collect()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = self.bystander.kill();
        let _ = self.bystander.wait();
    }
}

#[tokio::test]
async fn what_is_not_its_own_cannot_be_read() {
    let scene = Scene::new(site());
    let leaks = scene.attack(READING).await;
    if scene.site.mode == Mode::Unisolated {
        for what in [
            "database",
            "key",
            "vault",
            "neighbour",
            "home",
            "symlink",
            "process",
            "anywhere",
        ] {
            assert!(
                leaks.contains(&format!("LEAK {what}")),
                "{what} is no attack: {leaks:?}"
            );
        }
    } else {
        assert!(leaks.is_empty(), "{leaks:#?}");
    }
}

#[tokio::test]
async fn what_is_not_its_own_cannot_be_changed() {
    let scene = Scene::new(site());
    // Whoever runs the tests without walls wants to keep the machine.
    let is_open = scene.site.mode == Mode::Unisolated;
    let script = if is_open {
        KILLING.to_owned()
    } else {
        format!("{WRITING}{KILLING}")
    };
    let said = scene.attack(&script).await;
    assert_eq!(said, BTreeSet::from(["FINISHED".to_owned()]));
    assert_eq!(is_alive(scene.bystander.id()), !is_open);
}

#[tokio::test]
async fn the_inside_is_a_place_to_work() {
    let scene = Scene::new(site());
    let script = r#"
cd /tmp && echo one >file && cat file
cd "$HOME" 2>/dev/null; echo two >/dev/null && head -c 3 /dev/urandom >/dev/null && echo devices
printf 'three\n' >/dev/shm/lap-local-test && cat /dev/shm/lap-local-test && rm /dev/shm/lap-local-test
id -un >/dev/null && echo user
getent hosts localhost >/dev/null && echo names
ls /proc/self/fd >/dev/null && ls /usr/bin/env >/dev/null && echo system
"#;
    let said = scene.attack(script).await;
    let expected = ["devices", "names", "one", "system", "three", "user"];
    assert_eq!(said, expected.map(str::to_owned).into());
}
