//! Files in the guest: whether one is there, is fresh, and says the right thing; and those that an application writes to
//! say that it is alive.

use std::{path::Path, time::Duration};

use holdfast_policies::{
    probe::{FileProbe, HeartbeatProbe, pattern},
    time::Span,
};

use tokio::time::Instant;

use super::{look, word};
use crate::{
    channel::{GuestChannel, Looked},
    finding::{BODY_BYTES_MAX, Finding, contains},
    memory::Memory,
};

/// The age is taken by the guest's own clock, which wrote the file; beside it is told when that was. Content is cut at 64 KiB, as
/// [`BODY_BYTES_MAX`] says. Only a file that is not there is missing: one behind a folder that may not be entered, or on a dead file
/// system of a network, cannot be looked at (S5), which `[ -e ]` does not tell apart.
const FILE: &str = r#"at=$(LC_ALL=C stat -L -c %Y "$1" 2>&1) || case $?:$at in
  1:*": No such file or directory"*) exit 3;;
  *) echo "$at" >&2; exit 126;;
esac
now=$(date +%s) || exit 126
echo "$((now - at)) $at"
[ "$2" = content ] || exit 0
[ -f "$1" ] && [ -r "$1" ] || exit 4
head -c 65536 "$1""#;

/// What was found of a file.
struct Found {
    age: Duration,
    content: String,
}

/// Looks at a file.
pub(crate) async fn file(channel: &dyn GuestChannel, probe: &FileProbe, memory: &Memory, timeout: Duration) -> Finding {
    let read = probe.contains.is_some() || probe.matches.is_some();
    let found = match found(channel, &probe.path, read, memory, timeout).await {
        Ok(found) => found,
        Err(finding) => return finding,
    };
    let age = shown(found.age);
    if let Some(most) = probe.max_age.filter(|most| found.age > most.0) {
        return Finding::fail(format!("it was last written {age} ago, which is longer than {most}"));
    }
    let content = found.content.as_bytes().get(..BODY_BYTES_MAX).unwrap_or(found.content.as_bytes());
    if let Some(text) = probe.contains.as_deref().filter(|text| !contains(content, text.as_bytes())) {
        return Finding::fail(format!("it does not contain {text:?}"));
    }
    if let Some(text) = &probe.matches {
        match pattern::build(text) {
            Ok(pattern) if !pattern.is_match(content) => return Finding::fail(format!("it does not match {text:?}")),
            Ok(_) => {}
            Err(why) => return Finding::unknown(format!("the pattern {text:?} cannot be used: {why}")),
        }
    }
    Finding::pass(format!("it is there, last written {age} ago"))
}

/// Looks for the newest heartbeat.
///
/// Whoever writes `down` is alive, so that counts as a heartbeat too. An application that is back and only touches the file is
/// taken for alive by that; nothing of what it said has to be remembered from one question to the next.
pub(crate) async fn heartbeat(
    channel: &dyn GuestChannel,
    probe: &HeartbeatProbe,
    memory: &Memory,
    timeout: Duration,
) -> Finding {
    let found = match found(channel, &probe.file, true, memory, timeout).await {
        Ok(found) => found,
        Err(finding) => return finding,
    };
    let age = shown(found.age);
    let says_down = found.content.split_whitespace().next() == Some("down");
    match (found.age <= probe.max_age.0, says_down) {
        (true, false) => Finding::pass(format!("a heartbeat {age} ago")),
        (true, true) => Finding::pass(format!("a heartbeat {age} ago, and it says that it goes down")),
        (false, true) if found.age <= probe.down_for.0 => {
            Finding::unknown(format!("it said {age} ago that it goes down"))
        }
        (false, true) => Finding::fail(format!(
            "it said {age} ago that it goes down, and has not come back within {}",
            probe.down_for
        )),
        (false, false) => {
            Finding::fail(format!("the newest heartbeat is {age} old, which is longer than {}", probe.max_age))
        }
    }
}

async fn found(
    channel: &dyn GuestChannel,
    path: &Path,
    read: bool,
    memory: &Memory,
    timeout: Duration,
) -> Result<Found, Finding> {
    let looked = match channel.look_at(path, read).await {
        Some(looked) => looked,
        None => by_program(channel, &word(path), read, timeout).await?,
    };
    match looked {
        Looked::There { age, of_future, written, content } => {
            let age = memory.age(&word(path), &written, age, of_future, Instant::now());
            Ok(Found { age, content })
        }
        Looked::Missing => Err(Finding::fail(format!("{} is not there", path.display()))),
        Looked::Unreadable => Err(Finding::unknown(format!("{} cannot be read", path.display()))),
    }
}

async fn by_program(channel: &dyn GuestChannel, path: &str, read: bool, timeout: Duration) -> Result<Looked, Finding> {
    let said = look(channel, FILE, &[path, if read { "content" } else { "" }], timeout).await?;
    match said.code {
        3 => return Ok(Looked::Missing),
        4 => return Ok(Looked::Unreadable),
        0 => {}
        _ => return Err(said.odd()),
    }
    let (line, content) = said.text.split_once('\n').unwrap_or((&said.text, ""));
    let mut words = line.split_whitespace();
    let Some(age) = words.next().and_then(|age| age.parse::<i64>().ok()) else { return Err(said.odd()) };
    Ok(Looked::There {
        age: Duration::from_secs(age.max(0).unsigned_abs()),
        of_future: age < 0,
        written: words.next().unwrap_or_default().to_owned(),
        content: content.to_owned(),
    })
}

fn shown(age: Duration) -> Span {
    Span(age)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;
    use holdfast_policies::observe::Outcome;

    use super::*;
    use crate::channel::{ChannelError, ExecResult, Exit};

    /// A guest whose shell says this of the file.
    struct Guest(Mutex<&'static str>);

    #[async_trait]
    impl GuestChannel for Guest {
        async fn ping(&self, _: Duration) -> Result<(), ChannelError> {
            Ok(())
        }

        async fn exec(&self, _: &[String], _: Duration) -> Result<ExecResult, ChannelError> {
            let stdout = self.0.lock().unwrap().as_bytes().to_vec();
            Ok(ExecResult { exit: Exit::Code(0), stdout, stderr: Vec::new() })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_heartbeat_that_has_ceased_fails_though_the_guests_clock_was_set_back() {
        let (guest, memory) = (Guest(Mutex::new("1 1000\nup\n")), Memory::default());
        let probe = HeartbeatProbe { file: "/run/beat".into(), max_age: Span::secs(30), down_for: Span::secs(600) };
        for (said, after, wanted) in [
            ("1 1000\nup\n", 0, Outcome::Pass),
            ("-7189 1000\nup\n", 10, Outcome::Pass),
            ("-7160 1000\nup\n", 30, Outcome::Fail),
            ("0 8200\nup\n", 1, Outcome::Pass),
            // And ahead: the next one has not come yet.
            ("7205 8200\nup\n", 5, Outcome::Pass),
            ("7235 8200\nup\n", 30, Outcome::Fail),
        ] {
            tokio::time::advance(Duration::from_secs(after)).await;
            *guest.0.lock().unwrap() = said;
            let finding = heartbeat(&guest, &probe, &memory, Duration::from_secs(1)).await;
            assert_eq!(finding.outcome, wanted, "{said:?}: {}", finding.detail);
        }
    }
}
