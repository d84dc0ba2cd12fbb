//! Fills an archive, the most important first, the largest last.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokio::time::Instant;

use super::archive::{Content, Packer};
use super::git::{sections, subject};
use super::lost::{Lost, size};
use super::manifest::{
    CHANGES, COMMITS, CONVERSATION, FILES, MANIFEST, Manifest, Position, SQUASHED, VERSION, numbered,
};
use super::place::Place;
use super::survey::Survey;
use super::walk::{Candidate, Walk};

/// The manifest is written last and always has room.
pub(super) const RESERVED: usize = 4096;
/// Larger files are data and not work.
const MAX_FILE: u64 = 64 << 20;
const NO_ROOM: &str = "it does not fit";

/// What goes into a snapshot.
#[derive(Debug)]
pub(super) struct Material {
    pub(super) messages: Vec<Value>,
    /// `None` when the workspace has no repository; all its files are kept then.
    pub(super) survey: Option<Survey>,
    pub(super) workspace: PathBuf,
    /// When to stop looking at files.
    pub(super) deadline: Instant,
}

/// Packs at most `limit` bytes, which must be more than [`RESERVED`].
pub(super) fn pack(material: Material, limit: usize, lost: &mut Lost) -> io::Result<Vec<u8>> {
    let mut packer = Packer::new(limit.saturating_sub(RESERVED));
    conversation(&mut packer, &material.messages, lost)?;
    let mut git = None;
    let mut squashed = Vec::new();
    let untracked = match material.survey {
        Some(mut survey) => {
            commits(&mut packer, &mut survey, lost)?;
            changes(&mut packer, CHANGES, &survey.changes, lost)?;
            git = Some(survey.position);
            squashed = survey.squashed;
            Some(survey.untracked)
        }
        None => None,
    };
    match Place::open(&material.workspace) {
        Ok(place) => files(&mut packer, &place, untracked, material.deadline, lost)?,
        Err(error) => lost.add(format!("the files of the workspace: {error}")),
    }
    // Only needed when the branch has moved, so it takes what is left.
    changes(&mut packer, SQUASHED, &squashed, &mut Lost::default())?;
    packer.extend_limit(RESERVED);
    let manifest = serde_json::to_vec(&Manifest {
        version: VERSION,
        git,
    })?;
    if !packer.add(Path::new(MANIFEST), Content::File(0o600, &manifest))? {
        return Err(io::ErrorKind::StorageFull.into());
    }
    Ok(packer.into_bytes())
}

/// The newest messages that fit.
fn conversation(packer: &mut Packer, messages: &[Value], lost: &mut Lost) -> io::Result<()> {
    let mut kept = messages;
    while !kept.is_empty() {
        let mut lines = Vec::new();
        for message in kept {
            serde_json::to_writer(&mut lines, message)?;
            lines.push(b'\n');
        }
        if packer.add(Path::new(CONVERSATION), Content::File(0o600, &lines))? {
            break;
        }
        kept = &kept[kept.len().div_ceil(2)..];
    }
    let dropped = messages.len() - kept.len();
    if dropped > 0 {
        lost.add(format!("the {dropped} oldest messages of the conversation"));
    }
    Ok(())
}

/// Commits that do not fit are kept as uncommitted changes.
fn commits(packer: &mut Packer, survey: &mut Survey, lost: &mut Lost) -> io::Result<()> {
    let own = survey.position.own_commits;
    if own == 0 {
        return Ok(());
    }
    if let Some(bundle) = survey.commits.take()
        && packer.add(Path::new(COMMITS), Content::File(0o600, &bundle))?
    {
        return Ok(());
    }
    if let Some(base) = survey.base.take() {
        lost.add(format!(
            "{own} commits as such; their changes are kept as uncommitted ones"
        ));
        survey.changes = std::mem::take(&mut survey.squashed);
        survey.position.head = Some(base);
    } else {
        lost.add(format!("{own} commits"));
    }
    survey.position = Position {
        own_commits: 0,
        ..std::mem::take(&mut survey.position)
    };
    Ok(())
}

/// The changes to each file that fit, the shortest first.
fn changes(packer: &mut Packer, list: &str, diff: &[u8], lost: &mut Lost) -> io::Result<()> {
    let mut all = sections(diff);
    all.sort_by_key(|section| section.len());
    for (number, section) in all.into_iter().enumerate() {
        if !packer.add(&numbered(list, number), Content::File(0o600, section))? {
            let length = size(section.len() as u64);
            lost.add(format!(
                "the changes to {} ({length}): {NO_ROOM}",
                subject(section)
            ));
        }
    }
    Ok(())
}

fn files(
    packer: &mut Packer,
    place: &Place,
    untracked: Option<Vec<PathBuf>>,
    deadline: Instant,
    lost: &mut Lost,
) -> io::Result<()> {
    let mut walk = Walk::new(place);
    match untracked {
        Some(paths) => paths.iter().for_each(|path| walk.take(path)),
        None => walk.folder(Path::new(""), 0),
    }
    let Walk {
        mut found,
        lost: unreadable,
        ..
    } = walk;
    lost.extend(unreadable);
    found.sort_by_key(|candidate| candidate.size);
    let mut left_out = Vec::new();
    for candidate in found {
        if Instant::now() >= deadline {
            left_out.push((candidate, "there was no time for it".to_owned()));
            continue;
        }
        if let Err(why) = file(packer, place, &candidate) {
            left_out.push((candidate, why));
        }
    }
    for (Candidate { path, size: bytes }, why) in left_out.into_iter().rev() {
        lost.file(&path, format!("{why} ({})", size(bytes.unwrap_or(0))));
    }
    Ok(())
}

/// `Err` with the reason why the file is not in the archive.
fn file(packer: &mut Packer, place: &Place, candidate: &Candidate) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt;
    let Candidate { path, size } = candidate;
    let name = Path::new(FILES).join(path);
    let unreadable = |error: io::Error| error.to_string();
    let added = if size.is_some() {
        let opened = place.file(path).map_err(unreadable)?;
        let mode = opened.metadata().map_err(unreadable)?.permissions().mode();
        let mut bytes = Vec::new();
        opened
            .take(MAX_FILE + 1)
            .read_to_end(&mut bytes)
            .map_err(unreadable)?;
        if bytes.len() as u64 > MAX_FILE {
            return Err("it is too large".to_owned());
        }
        packer.add(&name, Content::File(mode, &bytes))
    } else {
        packer.add(&name, Content::Link(&place.target(path).map_err(unreadable)?))
    };
    match added {
        Ok(true) => Ok(()),
        Ok(false) => Err(NO_ROOM.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
