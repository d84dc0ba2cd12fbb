//! As whom a sandbox runs.

use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, lchown};
use std::path::Path;

use lap_core::id::SandboxId;
use rustix::process::{getegid, geteuid};

use crate::files::{open_file, open_folder_at};
use crate::removal::remove_tree;

/// User ids that no convention gives to anybody (systemd's table calls 60578 to 61183 unused), and that exist inside of
/// containers too.
const FIRST: u32 = 60_578;
const COUNT: u32 = 606;

/// What is made anew for every start, below the sandbox's folder.
pub(super) const TMP: &str = "tmp";
pub(super) const ROOT: &str = ".root";
pub(super) const ETC: &str = ".etc";

#[derive(Debug, Clone, Copy)]
pub(super) struct Tenant {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// It is another user than the server's.
    is_other: bool,
}

impl Tenant {
    /// As root every sandbox gets an id that it shares with few; nothing depends on sharing it with none.
    pub(super) fn of(sandbox: SandboxId, is_root: bool) -> Self {
        if !is_root {
            return Self {
                uid: geteuid().as_raw(),
                gid: getegid().as_raw(),
                is_other: false,
            };
        }
        let number = sandbox.as_uuid().as_u128() % u128::from(COUNT);
        let id = FIRST + u32::try_from(number).unwrap_or_default();
        Self {
            uid: id,
            gid: id,
            is_other: true,
        }
    }

    /// Makes the folder the tenant's own, with a private `/tmp` and a list of users that names nobody else. What an
    /// earlier start left of these is removed, so that nothing planted there is followed.
    pub(super) fn furnish(&self, folder: &Path) -> io::Result<()> {
        let at = open_folder_at(folder)?;
        for name in [c"tmp", c".root", c".etc"] {
            match remove_tree(&at, name) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let mut private = DirBuilder::new();
        private.mode(0o700);
        for name in [TMP, ROOT, ETC] {
            private.create(folder.join(name))?;
        }
        let (uid, gid, home) = (self.uid, self.gid, folder.join("home"));
        let home = home.display();
        let users = format!(
            "root:x:0:0:root:/:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n\
             agent:x:{uid}:{gid}:agent:{home}:/bin/sh\n"
        );
        write_new(&folder.join(ETC).join("passwd"), &users)?;
        let groups = format!("root:x:0:\nnogroup:x:65534:\nagent:x:{gid}:\n");
        write_new(&folder.join(ETC).join("group"), &groups)?;
        if self.is_other {
            self.take(folder)?;
        }
        Ok(())
    }

    fn take(&self, folder: &Path) -> io::Result<()> {
        let own = |path: &Path| lchown(path, Some(self.uid), Some(self.gid));
        for name in ["workspace", "home", "state", "log", TMP, ROOT, ETC, ""] {
            own(&folder.join(name))?;
        }
        // Not by path: from here on its folder is the tenant's.
        let log = open_file(
            folder,
            &["log", crate::log::NAME],
            rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::APPEND | rustix::fs::OFlags::CREATE,
        )?;
        std::os::unix::fs::fchown(&log, Some(self.uid), Some(self.gid))
    }

    /// What `setpriv` does last before the sandbox's program starts.
    pub(super) fn drop_privileges(&self, is_root: bool) -> Vec<OsString> {
        let mut words = vec![OsString::from("--no-new-privs")];
        if is_root {
            words.extend([
                format!("--reuid={}", self.uid).into(),
                format!("--regid={}", self.gid).into(),
                "--clear-groups".into(),
                "--inh-caps=-all".into(),
                "--bounding-set=-all".into(),
            ]);
        }
        words
    }
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(path)?;
    io::Write::write_all(&mut file, text.as_bytes())
}
