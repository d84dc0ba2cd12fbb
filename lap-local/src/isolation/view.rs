//! What of the machine's files is seen inside.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Enclosure;
use super::tenant::{ETC, ROOT, TMP};

/// Where programs and libraries are.
pub(super) const SYSTEM: &[&str] = &[
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/nix/store",
];

/// What of `/etc` programs need to find libraries, names, certificates and times. A list of what is shown, because
/// nobody knows the list of what must be hidden.
const ETC_SHOWN: &[&str] = &[
    "alternatives",
    "bash.bashrc",
    "ca-certificates",
    "crypto-policies",
    "debian_version",
    "fonts",
    "gai.conf",
    "host.conf",
    "hosts",
    "inputrc",
    "java-17-openjdk",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "locale.alias",
    "localtime",
    "magic",
    "magic.mime",
    "mime.types",
    "networks",
    "nsswitch.conf",
    "os-release",
    "perl",
    "pki/ca-trust",
    "pki/tls/certs",
    "profile",
    "protocols",
    "python3",
    "resolv.conf",
    "rpc",
    "services",
    "shells",
    "ssl/cert.pem",
    "ssl/certs",
    "ssl/openssl.cnf",
    "terminfo",
    "timezone",
    "xdg",
    "xml",
];

/// One step in the making of the new root, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// What is at the first path is seen at the second.
    ReadOnly(PathBuf, PathBuf),
    /// As above, and can be changed.
    Writable(PathBuf, PathBuf),
    /// A link to the first path at the second.
    Link(PathBuf, PathBuf),
    /// An empty folder.
    Folder(PathBuf),
    /// What was there before is covered.
    Cover(PathBuf),
}

/// The new root. `/proc` and `/dev` are added by whoever makes it.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) steps: Vec<Step>,
    /// Where the program starts.
    pub(super) start: PathBuf,
    /// An empty folder on which the new root can be put together.
    pub(super) scaffold: PathBuf,
}

impl View {
    /// The system alone, to try whether a view can be made.
    pub(super) fn of_system() -> Self {
        let mut steps = Vec::new();
        show_system(&mut steps);
        Self {
            steps,
            start: PathBuf::from("/"),
            scaffold: PathBuf::from("/tmp"),
        }
    }

    pub(super) fn of_sandbox(enclosure: &Enclosure<'_>, program: &Path) -> io::Result<Self> {
        let folder = enclosure.folder.to_path_buf();
        let mut steps = Vec::new();
        show_system(&mut steps);
        // What lies below the machine's /tmp is shown after the sandbox's own has covered that.
        let (below_tmp, elsewhere): (Vec<&PathBuf>, Vec<&PathBuf>) = enclosure
            .visible
            .iter()
            .partition(|path| path.starts_with("/tmp"));
        show(&mut steps, &elsewhere);
        for name in ["passwd", "group"] {
            let own = folder.join(ETC).join(name);
            steps.push(Step::ReadOnly(own, Path::new("/etc").join(name)));
        }
        if shown(&steps, enclosure.data) {
            steps.push(Step::Cover(enclosure.data.to_path_buf()));
        }
        for path in ["/run", "/var"] {
            steps.push(Step::Folder(path.into()));
        }
        steps.push(Step::Writable(folder.join(TMP), "/tmp".into()));
        steps.push(Step::Link("/tmp".into(), "/var/tmp".into()));
        show(&mut steps, &below_tmp);
        if below_tmp.iter().any(|path| enclosure.data.starts_with(path)) {
            steps.push(Step::Cover(enclosure.data.to_path_buf()));
        }
        // A program below the machine's /tmp has just been covered by the sandbox's own.
        let covered = program.starts_with(enclosure.data) || program.starts_with("/tmp");
        if covered || !shown(&steps, program) {
            add_parents(&mut steps, program);
            steps.push(Step::ReadOnly(program.to_path_buf(), program.to_path_buf()));
        }
        add_parents(&mut steps, &folder);
        steps.push(Step::Writable(folder.clone(), folder.clone()));
        Ok(Self {
            steps,
            scaffold: folder.join(ROOT),
            start: folder,
        })
    }
}

fn show(steps: &mut Vec<Step>, paths: &[&PathBuf]) {
    for path in paths {
        // What is not there now cannot be shown; a harness that needs it says so itself.
        if let Ok(real) = path.canonicalize() {
            add_parents(steps, path);
            steps.push(Step::ReadOnly(real, (*path).clone()));
        }
    }
}

fn show_system(steps: &mut Vec<Step>) {
    for path in SYSTEM.iter().map(PathBuf::from) {
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_symlink() => {
                if let Ok(target) = fs::read_link(&path) {
                    steps.push(Step::Link(target, path));
                }
            }
            Ok(found) if found.is_dir() => {
                add_parents(steps, &path);
                steps.push(Step::ReadOnly(path.clone(), path));
            }
            _ => {}
        }
    }
    steps.push(Step::Folder("/etc".into()));
    for name in ETC_SHOWN {
        let path = Path::new("/etc").join(name);
        // Some are links to places that are not shown, and their content is what counts.
        if let Ok(real) = path.canonicalize() {
            add_parents(steps, &path);
            steps.push(Step::ReadOnly(real, path));
        }
    }
}

/// Whether a step has made this path visible already.
fn shown(steps: &[Step], path: &Path) -> bool {
    steps.iter().any(|step| match step {
        Step::ReadOnly(_, at) | Step::Writable(_, at) => path.starts_with(at),
        _ => false,
    })
}

/// The folders above the path, from the outermost on, where no step has brought them.
fn add_parents(steps: &mut Vec<Step>, path: &Path) {
    let mut parents: Vec<&Path> = path.ancestors().skip(1).collect();
    parents.pop();
    for parent in parents.into_iter().rev() {
        let folder = Step::Folder(parent.to_path_buf());
        if !steps.contains(&folder) && !is_read_only(steps, parent) {
            steps.push(folder);
        }
    }
}

/// Whether the path is inside of something that is shown read-only, where no folder can be made and none has to be.
fn is_read_only(steps: &[Step], path: &Path) -> bool {
    let last = steps.iter().rev().find(|step| match step {
        Step::ReadOnly(_, at) | Step::Writable(_, at) | Step::Cover(at) => path.starts_with(at),
        _ => false,
    });
    matches!(last, Some(Step::ReadOnly(..)))
}
