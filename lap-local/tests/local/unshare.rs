//! Sandboxes behind the walls of util-linux's unshare.

use crate::support::{Mode, Site};

fn site() -> Site {
    Site::new(Mode::Unshare)
}

#[path = "attack.rs"]
mod attack;
#[path = "launch.rs"]
mod launch;
#[path = "laws.rs"]
mod laws;
#[path = "limits.rs"]
mod limits;
#[path = "stop.rs"]
mod stop;
#[path = "survivors.rs"]
mod survivors;
