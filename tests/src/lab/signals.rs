//! Ctrl-C, TERM and a closed terminal: a program that has built a lab takes it down on its way out.

use std::{thread, time::Duration};

use anyhow::Result;
use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
};

use super::{Place, wait};

/// What a program exits with that was interrupted.
pub const INTERRUPTED: u8 = 130;
/// How long an interrupted run may take to clean up before it is made to.
const CLEAN_UP_LIMIT: Duration = Duration::from_secs(30);

/// From here on these signals end every wait ([`wait::interrupt`]). A run that goes on all the same is ended, with its labs.
///
/// # Errors
/// When signals cannot be waited for.
pub fn clean_up() -> Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let entered = runtime.enter();
    let (mut interrupt, mut terminate, mut hang_up) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    drop(entered);
    thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {}, _ = hang_up.recv() => {} }
        });
        wait::interrupt();
        thread::sleep(CLEAN_UP_LIMIT);
        let own = format!("{}x", std::process::id());
        Place::all().unwrap_or_default().iter().filter(|place| place.id.starts_with(&own)).for_each(Place::take_down);
        std::process::exit(i32::from(INTERRUPTED));
    });
    Ok(())
}
