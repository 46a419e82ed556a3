//! `holdfast journal`: the newest decisions, those of some time, and with `--follow` those to come.

use std::{
    io::{self, Write},
    time::Duration,
};

use holdfast_policies::time::{WallTime, millis};

use super::{
    super::desk::{Answer, JOURNAL_LINES_MAX, JournalLine, Request},
    arguments::Journal,
    call::{Asked, runtime},
    outcome::{Failure, Reply, json_line, plain},
};
use crate::clock;

/// Entries shown where nothing is said of how many, or of which time.
const LAST: usize = 50;

/// Entries asked for to see whether there are newer ones. Where all of them are newer, as many as can be had are asked for.
const NEWER: usize = 100;

/// How long until it is looked again: what a person hardly waits for, and what costs the coordinator little.
const EVERY: Duration = Duration::from_secs(1);

/// Shows what is asked for. What is followed is written to `out` as it comes.
pub(super) fn show(
    asked: Asked<'_>,
    which: &Journal,
    json: bool,
    out: &mut dyn Write,
    warnings: &mut dyn Write,
) -> Result<Reply, Failure> {
    let runtime = runtime()?;
    let ask = |last: usize| match runtime.block_on(asked.answer(Request::Journal { last }))? {
        Answer::Journal(lines) => Ok(lines),
        other => Err(Failure::Failed(format!("that is no journal: {}", other.content()))),
    };
    let last = which.last.unwrap_or(if which.since.is_some() { JOURNAL_LINES_MAX } else { LAST });
    let (lines, newest) = begin(ask(last.max(1))?, last);
    let since = which.since.map_or(WallTime(0), |span| WallTime(clock::wall().0.saturating_sub(millis(span.0))));
    if which.since.is_some() && lines.len() >= last && lines.first().is_some_and(|line| line.at_ms > since.0) {
        // Who cannot be warned is answered all the same.
        let _ = writeln!(warnings, "warning: only the newest {} of that time are shown", lines.len());
    }
    let lines: Vec<JournalLine> = lines.into_iter().filter(|line| line.at_ms >= since.0).collect();
    if !which.follow {
        return Ok(reply(&lines));
    }
    let write = |line: &JournalLine| {
        out.write_all(shown(line, json)?.as_bytes())?;
        out.flush()
    };
    let rest = || runtime.block_on(async { tokio::time::sleep(EVERY).await });
    follow((lines, newest), ask, rest, write, warnings)
}

/// The entries that are shown first, and which is the newest, also where none is shown: those to come begin behind it.
fn begin(mut lines: Vec<JournalLine>, last: usize) -> (Vec<JournalLine>, u64) {
    let newest = lines.last().map_or(0, |line| line.index);
    (lines.split_off(lines.len().saturating_sub(last)), newest)
}

fn reply(lines: &[JournalLine]) -> Reply {
    let json = serde_json::to_value(lines).unwrap_or_default();
    Reply { text: lines.iter().map(text).collect(), json, code: 0 }
}

/// An entry that is followed: no reply, and so made fit for a terminal here.
fn shown(line: &JournalLine, json: bool) -> io::Result<String> {
    if json { Ok(json_line(&serde_json::to_value(line)?)) } else { Ok(plain(&text(line)).into_owned()) }
}

/// An entry as it is read.
pub(super) fn text(line: &JournalLine) -> String {
    format!("{} {:>6}  {}\n", line.at, line.index, line.what)
}

/// Shows lines, and then those that come after the newest, until whoever reads has had enough. A cluster without a coordinator is
/// waited for: the most interesting lines come when it has one again.
fn follow(
    (mut lines, mut newest): (Vec<JournalLine>, u64),
    mut ask: impl FnMut(usize) -> Result<Vec<JournalLine>, Failure>,
    mut rest: impl FnMut(),
    mut write: impl FnMut(&JournalLine) -> io::Result<()>,
    warnings: &mut dyn Write,
) -> Result<Reply, Failure> {
    let mut is_away = false;
    loop {
        match lines.iter().try_for_each(&mut write) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Reply::text(String::new())),
            Err(error) => return Err(Failure::Failed(format!("the journal cannot be written: {error}"))),
        }
        newest = lines.last().map_or(newest, |line| line.index);
        rest();
        lines = match newer(&mut ask, newest) {
            Err(Failure::Unavailable(why)) => {
                if !is_away {
                    let _ = writeln!(warnings, "warning: {}; the journal goes on when that is over", plain(&why));
                }
                is_away = true;
                Vec::new()
            }
            answered => {
                is_away = false;
                answered?
            }
        };
    }
}

fn newer(
    ask: &mut impl FnMut(usize) -> Result<Vec<JournalLine>, Failure>,
    newest: u64,
) -> Result<Vec<JournalLine>, Failure> {
    let mut lines = ask(NEWER)?;
    if lines.len() >= NEWER && lines.first().is_some_and(|line| line.index > newest) {
        lines = ask(JOURNAL_LINES_MAX)?;
    }
    lines.retain(|line| line.index > newest);
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(index: u64) -> JournalLine {
        JournalLine { index, at_ms: index, at: "then".to_owned(), what: "what".to_owned() }
    }

    /// What is shown while a journal grows to these lengths, until so many lines are read; and what is warned of. `None`: nobody
    /// leads.
    fn followed(lengths: &[Option<u64>], most: usize) -> (Vec<u64>, String) {
        let (mut shown, mut warnings, mut turns) = (Vec::new(), Vec::<u8>::new(), lengths.iter());
        let mut length = 0;
        let ask = |last: usize| -> Result<Vec<JournalLine>, Failure> {
            if last == NEWER {
                let next = turns.next().copied().unwrap_or(Some(length));
                length = next.ok_or_else(|| Failure::Unavailable("nobody leads".to_owned()))?;
            }
            Ok((length.saturating_sub(last as u64) + 1..=length).map(line).collect())
        };
        let write = |line: &JournalLine| {
            if shown.len() == most {
                return Err(io::Error::from(io::ErrorKind::BrokenPipe));
            }
            shown.push(line.index);
            Ok(())
        };
        let ended = follow((vec![line(1), line(2)], 2), ask, || {}, write, &mut warnings).unwrap();
        assert_eq!((ended.code, ended.text.as_str()), (0, ""));
        (shown, String::from_utf8(warnings).unwrap())
    }

    #[test]
    fn what_is_followed_is_shown_once_and_in_order_until_nobody_reads() {
        let (shown, warned) = followed(&[Some(2), Some(3), Some(3), Some(6), Some(7)], 6);
        assert_eq!((shown, warned.as_str()), (vec![1, 2, 3, 4, 5, 6], ""));
        let (shown, _) = followed(&[Some(900), Some(901)], 900);
        assert_eq!(shown, (1..=900).collect::<Vec<u64>>(), "more at once than it asks for");
    }

    #[test]
    fn whoever_wants_only_what_is_to_come_is_shown_nothing_of_before() {
        assert_eq!(begin(vec![line(7)], 0), (vec![], 7));
        assert_eq!(begin(vec![line(6), line(7)], 50), (vec![line(6), line(7)], 7));
        assert_eq!(begin(vec![], 50), (vec![], 0));
    }

    #[test]
    fn what_is_followed_instructs_no_terminal() {
        let line = JournalLine { what: "web-1\u{1b}[2J\u{9b}31m is up".to_owned(), ..line(1) };
        for json in [false, true] {
            let shown = shown(&line, json).unwrap();
            let entry = shown.strip_suffix('\n').unwrap();
            assert!(entry.contains("web-1") && !entry.contains(char::is_control), "{shown:?}");
        }
    }

    #[test]
    fn an_election_does_not_end_what_is_followed() {
        let (shown, warned) = followed(&[Some(3), None, None, Some(5), Some(6)], 5);
        assert_eq!(shown, [1, 2, 3, 4, 5]);
        assert_eq!(warned, "warning: nobody leads; the journal goes on when that is over\n");
    }
}
