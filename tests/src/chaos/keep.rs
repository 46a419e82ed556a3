//! What is left of a run that went wrong: the story, the logs, the stores, and what the cluster says of itself.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{ground::Ground, story::Story};
use crate::lab::command;

/// Longest time for one copy.
const COPY_LIMIT: Duration = Duration::from_secs(90);
/// Newest entries of the journal that are kept: all that a supervisor shows.
const JOURNAL_LINES: usize = 2_000;
/// What is kept of each host beside its logs.
const STATE: &str = "state";

/// Copies all of it to a folder of its own, and returns that. What cannot be had is left out, and told.
///
/// # Errors
/// When the folder cannot be made.
pub(super) fn keep(ground: &Ground, story: &Story, seed: u64) -> Result<PathBuf> {
    let folder = std::env::temp_dir().join(format!("holdfast-chaos-{seed}-{}", std::process::id()));
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for host in ground.hosts() {
        if let Err(error) = keep_host(&ground.lab.host_dir(host), &folder.join(host)) {
            story.tell(&format!("not all of {host} is kept: {error:#}"));
        }
        keep_answer(ground, host, &folder.join(host).join("status.json"), &json!("status"));
        let journal = json!({ "journal": { "last": JOURNAL_LINES } });
        keep_answer(ground, host, &folder.join(host).join("journal.json"), &journal);
    }
    let any = ground.lab.status().map(|status| status.from).unwrap_or_default();
    for guest in &ground.guests {
        let question = json!({ "explain": { "guest": guest.name } });
        keep_answer(ground, &any, &folder.join(format!("explain-{}.json", guest.name)), &question);
    }
    let tenures: String = ground.lab.tenures().iter().map(|tenure| format!("{tenure:?}\n")).collect();
    fs::write(folder.join("tenures.txt"), tenures)?;
    fs::write(folder.join("story.txt"), story.text())?;
    Ok(folder)
}

fn keep_host(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)?.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if path.extension().is_some_and(|ending| ending == "log") || name == STATE {
            let argv: [&OsStr; 5] =
                ["cp".as_ref(), "-a".as_ref(), "--sparse=always".as_ref(), path.as_os_str(), to.as_os_str()];
            command::run_ok(&argv, COPY_LIMIT)?;
        }
    }
    Ok(())
}

fn keep_answer(ground: &Ground, host: &str, file: &Path, question: &Value) {
    let answer = match ground.lab.ask(host, question) {
        Ok(answer) => format!("{answer:#}"),
        Err(error) => format!("{error:#}"),
    };
    // The story is what counts; this is a help.
    let _ = fs::write(file, answer);
}
