//! What the model is told before the conversation.

use std::path::Path;

use lap_harness::OpenRequest;

/// All skills together; what exceeds it is named but not shown.
const MAX_SKILLS: usize = 64 * 1024;

/// The system prompt.
pub(super) fn system(opening: &OpenRequest, workspace: &Path, is_repository: bool, date: &str) -> String {
    let place = if is_repository {
        "a git clone"
    } else {
        "an empty folder at first"
    };
    let mut prompt = format!(
        "You are a coding agent. You work alone in a sandbox on the folder {} ({place}), with the tools you are given. \
         Today is {date}.\n\
         - Do what the person asks, completely, and nothing beyond it. Nobody can answer questions while you work: where \
         something is open, choose the sensible reading and say so at the end.\n\
         - Look before you change: read the files concerned, follow the conventions you find there.\n\
         - Verify your work where you can: run the tests, the build or the program.\n\
         - Prefer `edit` for changes and `write` for new files. Paths are relative to the folder. `bash` starts in it.\n\
         - Commit or push only when asked.\n\
         - Finish with a short answer: what you did, what you found, what is left.\n",
        workspace.display()
    );
    if let Some(own) = opening.prompt.as_deref().filter(|own| !own.trim().is_empty()) {
        prompt.push_str("\n# Your instructions\n\n");
        prompt.push_str(own.trim());
        prompt.push('\n');
    }
    if !opening.skills.is_empty() {
        prompt.push_str("\n# Skills\n\nFollow a skill when the task calls for it.\n");
    }
    let mut room = MAX_SKILLS;
    for skill in &opening.skills {
        prompt.push_str(&format!("\n## Skill: {}\n\n", skill.slug));
        match room.checked_sub(skill.content.len()) {
            Some(left) => {
                room = left;
                prompt.push_str(skill.content.trim());
                prompt.push('\n');
            }
            None => prompt.push_str("(left out: the skills are too long together)\n"),
        }
    }
    prompt
}
