//! Waiting for a condition: always with a limit, and with the last thing seen in the message when it runs out.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// How soon a condition is looked at again at the earliest. Short against what is measured (tens of milliseconds).
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// At the latest.
const LOOK_EVERY_MAX: Duration = Duration::from_millis(500);
/// How many times as long as a look has taken it rests in between: what is run again and again would take a processor from what it
/// waits for, and the more so the slower the machine is.
const RESTS: u32 = 3;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Makes every wait and every command of the lab end with an error, so that the lab is taken down in order.
pub fn interrupt() {
    INTERRUPTED.store(true, Ordering::SeqCst);
}

/// Whether somebody asked to stop.
#[must_use]
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// Looks until `look` returns `Ok`, and returns that.
///
/// # Errors
/// After `limit`, with what `look` last said; at once when interrupted.
pub fn until<T>(what: &str, limit: Duration, look: impl FnMut() -> Result<T, String>) -> Result<T> {
    until_every(LOOK_EVERY, what, limit, look)
}

/// Like [`until`], with so long a rest between two looks at least: for what costs others more than whoever looks.
///
/// # Errors
/// As [`until`].
pub fn until_every<T>(
    rest: Duration,
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<T, String>,
) -> Result<T> {
    let begin = Instant::now();
    loop {
        if interrupted() {
            bail!("interrupted while waiting for: {what}");
        }
        let look_began = Instant::now();
        match look() {
            Ok(found) => return Ok(found),
            Err(last) if begin.elapsed() >= limit => {
                bail!("not within {:.0} s: {what}; last seen: {last}", limit.as_secs_f64())
            }
            Err(_) => thread::sleep((look_began.elapsed() * RESTS).min(LOOK_EVERY_MAX).max(rest)),
        }
    }
}

/// Sleeps, but not when interrupted.
///
/// # Errors
/// When interrupted.
pub fn pause(time: Duration) -> Result<()> {
    let begin = Instant::now();
    while begin.elapsed() < time {
        if interrupted() {
            bail!("interrupted");
        }
        thread::sleep(LOOK_EVERY.min(time));
    }
    Ok(())
}
