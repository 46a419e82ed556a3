//! What is kept of a guest that is stopped because something is wrong with it, so that a person can find out what was.
//!
//! Little of it costs time before the kill: what the monitor knows is read from memory. A picture of the screen has to be
//! asked for; that is bounded, and only guests that are given a display have one (`screen.rs`). The ends of console and QEMU's
//! log, and the picture, are read when no process of the guest is left; they lie on a tmpfs. The files are written by a task
//! of its own, so that a slow disk delays nothing (`forensics/shelf.rs`).

mod shelf;

use std::{
    io,
    path::{Path, PathBuf},
};

use holdfast_policies::{
    names::{Epoch, GuestName},
    observe::{GuestCondition, clean_to},
    order::LAST_SEEN_BYTES_MAX,
    time::WallTime,
};
use tokio::sync::mpsc;

use super::{logs, monitor::MonitorClient, record::Files, screen};
use crate::{clock, desk::rfc3339};

/// How much of the end of console and log is kept in a case, in bytes each: a kernel's panic with its trace takes four.
const TAIL_BYTES: usize = 8 << 10;

/// Cases that may wait to be written; more are lost, which a whole host that is emptied on a dead disk should not notice.
const WAITING_MAX: usize = 64;

/// Of those, how many may have a picture with them; the others wait without. They wait in memory: 16 MiB.
const PICTURES_WAITING_MAX: usize = 8;

/// Lines of the console that the journal gets.
const LINES_MAX: usize = 5;

/// How long they may be together, in bytes; with what else is told they fit into [`LAST_SEEN_BYTES_MAX`].
const LINES_BYTES_MAX: usize = 335;

/// How long one of them may be, in bytes, so that one does not push out the others.
const LINE_BYTES_MAX: usize = 160;

/// A guest that QEMU says has panicked.
const PANICKED: &str = "panicked";

/// What kernels begin to say when they panic. A trace may follow that is longer than what the journal gets.
const PANICS: [&str; 2] = ["Kernel panic", "panic: "];

/// How much of the last line of QEMU's log the journal gets, in bytes.
const LOG_LINE_BYTES_MAX: usize = 100;

/// What was known of a guest right before it was killed.
#[derive(Debug)]
pub struct Seen {
    epoch: Epoch,
    at: WallTime,
    state: String,
    events: Vec<String>,
    /// Whether QEMU has written a picture of its screen, or why not; `None` when it was not asked for one.
    pub screen: Option<Result<(), String>>,
}

impl Seen {
    /// What its monitor knows, without asking; `None` for one half of a migration, whose end is in order.
    pub fn of(epoch: Epoch, monitor: &MonitorClient) -> Option<Self> {
        let state = in_words(&monitor.view().condition)?;
        Some(Self { epoch, at: clock::wall(), state, events: monitor.recent(clock::moment()), screen: None })
    }
}

fn in_words(condition: &GuestCondition) -> Option<String> {
    match condition {
        GuestCondition::Running => Some("running".to_owned()),
        GuestCondition::Paused { reason } => Some(format!("paused ({reason})")),
        GuestCondition::IoError { detail } => Some(format!("stopped by its storage ({detail})")),
        GuestCondition::Panicked => Some(PANICKED.to_owned()),
        GuestCondition::Exited { detail } => Some(format!("gone ({detail})")),
        GuestCondition::Unknown { detail } => Some(format!("not known ({detail})")),
        GuestCondition::Incoming | GuestCondition::Sent => None,
    }
}

/// One guest that was stopped.
#[derive(Debug)]
struct Case {
    guest: GuestName,
    seen: Seen,
    console: String,
    log: String,
    /// Its screen, or why there is no picture of it; `None` when there was to be none.
    picture: Option<Result<Vec<u8>, String>>,
}

/// Has cases written, one after the other.
pub struct Keeper {
    folder: PathBuf,
    cases: mpsc::Sender<Case>,
}

impl Keeper {
    /// Keeps cases below `folder`, which is made when there is one.
    pub fn begin(folder: PathBuf) -> Self {
        let (cases, to_write) = mpsc::channel(WAITING_MAX);
        tokio::spawn(write_all(folder.clone(), to_write));
        Self { folder, cases }
    }

    /// Takes what a guest has left whose last process is gone, has it kept, and returns it in one line.
    pub async fn close(&self, guest: &GuestName, seen: Seen, files: Files) -> String {
        let screen = seen.screen.clone();
        let read = tokio::task::spawn_blocking(move || {
            let picture = screen.map(|written| written.and_then(|()| screen::read(&files.screen())));
            (end_of(&files.console()), end_of(&files.log()), picture)
        });
        let (console, log, mut picture) = read.await.unwrap_or_default();
        if matches!(picture, Some(Ok(_))) && self.waiting() >= PICTURES_WAITING_MAX {
            picture = Some(Err("too many others wait to be written".to_owned()));
        }
        let case = Case { guest: guest.clone(), seen, console, log, picture };
        let account = case.account(&case.path(&self.folder));
        if let Err(error) = self.cases.try_send(case) {
            tracing::warn!(%guest, %error, "what was seen of a stopped guest is not kept");
        }
        account
    }

    fn waiting(&self) -> usize {
        self.cases.max_capacity().saturating_sub(self.cases.capacity())
    }
}

fn end_of(path: &Path) -> String {
    match logs::take_end(path) {
        Ok(end) => {
            let tail = end.get(end.len().saturating_sub(TAIL_BYTES)..).unwrap_or_default();
            plain(&String::from_utf8_lossy(tail))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => {
            tracing::warn!(log = %path.display(), %error, "the end of a stopped guest's log cannot be read");
            String::new()
        }
    }
}

/// A guest's text without what a terminal would obey: colours and the like go, other control characters become spaces.
fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\n' => out.push('\n'),
            '\r' => {}
            '\u{1b}' if rest.peek() == Some(&'[') => {
                _ = rest.next();
                // Parameters, then one character that ends it. What is something else is text again.
                while rest.next_if(|c| matches!(*c, ' '..='?')).is_some() {}
                _ = rest.next_if(|c| matches!(*c, '@'..='~'));
            }
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

impl Case {
    fn path(&self, folder: &Path) -> PathBuf {
        folder.join(self.guest.as_str()).join(format!("{}.txt", self.seen.epoch))
    }

    /// For the journal: how it was, where the rest is, and what was said last.
    fn account(&self, path: &Path) -> String {
        let picture = match self.picture {
            Some(Ok(_)) => format!(" and {}.png", self.seen.epoch),
            Some(Err(_)) | None => String::new(),
        };
        let mut parts = vec![self.seen.state.clone(), format!("more in {}{picture}", path.display())];
        let log = last_lines(&self.log, 1, LOG_LINE_BYTES_MAX);
        if !log.is_empty() {
            parts.push(format!("QEMU said: {log}"));
        }
        parts.push(match self.console_end() {
            lines if lines.is_empty() => "it said nothing on its console".to_owned(),
            lines => format!("its console ended: {lines}"),
        });
        clean_to(&parts.join("; "), LAST_SEEN_BYTES_MAX)
    }

    /// The last lines of its console; of a kernel that has panicked, what it said of that, wherever that stands.
    fn console_end(&self) -> String {
        let lines = last_lines(&self.console, LINES_MAX, LINES_BYTES_MAX);
        let is_panic = |line: &&str| PANICS.iter().any(|word| line.contains(word));
        let panic = self.console.lines().rev().map(str::trim).find(is_panic);
        let Some(panic) = panic.filter(|_| self.seen.state == PANICKED) else { return lines };
        let panic = clean_to(panic, LINE_BYTES_MAX);
        if lines.contains(&panic) {
            return lines;
        }
        let lines = last_lines(&self.console, LINES_MAX - 1, LINES_BYTES_MAX.saturating_sub(panic.len()));
        format!("{panic} | … | {lines}")
    }

    /// For a person who looks into it.
    fn text(&self) -> String {
        let Self { guest, seen, console, log, picture } = self;
        let screen = match picture {
            Some(Ok(_)) => format!("== its screen\nis in {}.png\n\n", seen.epoch),
            Some(Err(why)) => format!("== its screen\nno picture: {why}\n\n"),
            None => String::new(),
        };
        let events = if seen.events.is_empty() { "none".to_owned() } else { seen.events.join("\n") };
        format!(
            "{guest}, epoch {}, stopped at {}\nbefore that it was {}\n\n== QEMU's last events\n{events}\n\n{screen}\
             == end of QEMU's log\n{log}\n\n== end of the console\n{console}\n",
            seen.epoch,
            rfc3339(seen.at),
            seen.state,
        )
    }
}

/// The last lines that are not empty, in one line. Of more than `bytes_max` the newest are kept.
fn last_lines(text: &str, lines_max: usize, bytes_max: usize) -> String {
    let (mut lines, mut left) = (Vec::new(), bytes_max);
    let newest_first = text.lines().rev().map(str::trim).filter(|line| !line.is_empty());
    for line in newest_first.take(lines_max) {
        let line = clean_to(line, LINE_BYTES_MAX.min(bytes_max));
        let Some(rest) = left.checked_sub(line.len()) else { break };
        left = rest;
        lines.push(line);
    }
    lines.reverse();
    lines.join(" | ")
}

async fn write_all(folder: PathBuf, mut cases: mpsc::Receiver<Case>) {
    while let Some(case) = cases.recv().await {
        let folder = folder.clone();
        let written = tokio::task::spawn_blocking(move || {
            if let Err(error) = shelf::put(&folder, &case) {
                tracing::warn!(guest = %case.guest, %error, "what was seen of a stopped guest is not kept");
            }
        });
        // Whatever became of this one, the next is another.
        _ = written.await;
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use super::*;

    pub(super) fn case(index: u64, console: &str) -> Case {
        let seen = Seen {
            epoch: Epoch { generation: 1, index },
            at: WallTime(1_772_420_645_007),
            state: "running".to_owned(),
            events: vec!["2s before: RESET {\"guest\":true}".to_owned()],
            screen: None,
        };
        let guest = GuestName::new("web-1").unwrap();
        Case { guest, seen, console: console.to_owned(), log: String::new(), picture: None }
    }

    #[test]
    fn a_line_for_the_journal_holds_the_last_lines_and_is_bounded() {
        let path = Path::new("/var/lib/holdfast/forensics/web-1/1.7.txt");
        let told = case(7, "one\ntwo\n\nthree\nfour\nfive\nsix\n\n").account(path);
        let begin = "running; more in /var/lib/holdfast/forensics/web-1/1.7.txt; ";
        assert_eq!(told, format!("{begin}its console ended: two | three | four | five | six"));
        let silent = case(7, " \n").account(path);
        assert_eq!(silent, format!("{begin}it said nothing on its console"));
        let long: Vec<String> = (0..9).map(|line| format!("{line} {}", "é".repeat(1_000))).collect();
        let told = case(7, &long.join("\n")).account(path);
        assert!(told.len() <= LAST_SEEN_BYTES_MAX, "{} bytes", told.len());
        assert!(told.contains("| 8 é"), "the newest are kept: {told}");
    }

    #[test]
    fn a_kernel_that_has_panicked_is_quoted_on_that_however_long_the_trace_after_it() {
        let path = Path::new("/case");
        let panic = "[    4.487357] Kernel panic - not syncing: sysrq triggered crash";
        let trace = "[    4.494601]  dump_stack_lvl+0x44/0x5c\n".repeat(40);
        let mut case = case(7, &format!("booting\n{panic}\n{trace}[    4.502306]  </TASK>\n"));
        assert!(!case.account(path).contains("panic"), "what runs may have said that in an earlier boot");
        case.seen.state = in_words(&GuestCondition::Panicked).unwrap();
        let told = case.account(path);
        assert!(told.starts_with(&format!("panicked; more in /case; its console ended: {panic} | … | ")), "{told}");
        assert!(told.ends_with("dump_stack_lvl+0x44/0x5c | [    4.502306]  </TASK>"), "{told}");
        assert_eq!(told.matches("dump_stack").count(), LINES_MAX - 2);
        case.console = format!("BUG: unable to handle page fault\n{trace}{panic}\n");
        assert!(case.account(path).ends_with(&format!("dump_stack_lvl+0x44/0x5c | {panic}")));
    }

    #[test]
    fn a_guest_cannot_write_to_the_terminal_of_whoever_reads_its_case() {
        assert_eq!(plain("\u{1b}[1;31mOops\u{1b}[0m\r\nnext\tline\u{7}"), "Oops\nnext line ");
        assert_eq!(plain("\u{1b}]0;title\u{7}x\u{1b}[31"), " ]0;title x");
        let all: String = ('\0'..='\u{ff}').collect();
        assert!(plain(&all).chars().all(|c| c == '\n' || !c.is_control()));
    }

    #[tokio::test]
    async fn each_run_has_a_console_of_its_own_and_the_one_before_stays_for_people() {
        let folder = tempfile::tempdir().unwrap();
        let guest = GuestName::new("web-1").unwrap();
        let files = Files::new(folder.path(), &guest);
        files.make().unwrap();
        let keeper = Keeper::begin(folder.path().join("forensics"));
        fs::write(files.console(), format!("{}\nKernel panic\n", "x".repeat(2 * TAIL_BYTES))).unwrap();
        let first = keeper.close(&guest, case(1, "").seen, files.clone()).await;
        assert!(first.ends_with("| Kernel panic"), "{first}");
        assert!(fs::read_to_string(files.console().with_extension("old")).unwrap().ends_with("Kernel panic\n"));
        let second = keeper.close(&guest, case(2, "").seen, files.clone()).await;
        assert!(second.ends_with("it said nothing on its console"), "{second}");
        let last = folder.path().join("forensics/web-1/1.2.txt");
        let written = async {
            while !last.exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), written).await.expect("the case is written");
    }
}
