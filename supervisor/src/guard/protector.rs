//! Does what the guard's duty is: pets the watchdog, or kills the guests and pets only when none is left.
//!
//! [`Protector::act`] is all that happens between a wake-up and the kill. What it needs is made ready by
//! [`Protector::prepare`], while there is time: then it allocates nothing and waits for nothing, and opens only cgroups that
//! were made anew since. (A registration that nothing was prepared for would allocate; there is none, as every answered
//! request is prepared for in the same turn.) The module's page says what the rest of a turn does.

use std::{
    os::fd::{BorrowedFd, OwnedFd},
    path::Path,
    sync::Arc,
    time::Duration,
};

use holdfast_policies::{hostfile::WatchdogFile, names::GuestName, time::Moment};
use nix::sys::mman::{MlockAllFlags, mlockall};

use super::{
    super::causes::with_causes,
    cgroups::Cgroups,
    duty::Duty,
    kernel,
    last_words::{LastWords, Words},
    protocol::Hardened,
    state::{Keep, State},
    watchdog::{Watchdog, WatchdogError},
    written::Written,
};

/// How often killed guests are looked at until they are gone.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How often a watchdog that could not be armed, or whose end could not be kept, is tried again: several times within the shortest
/// time-out, because an earlier guard may have left it armed.
const ARM_AGAIN: Duration = Duration::from_millis(250);

/// How often a watchdog is tried outside stop mode until it has been seen: its driver may be loaded late.
const TRY_AGAIN: Duration = Duration::from_secs(10);

/// Holds the guests' cgroups and the watchdog.
#[derive(Debug)]
pub(super) struct Protector {
    wanted: Option<WatchdogFile>,
    watchdog: Option<Watchdog>,
    cgroups: Cgroups,
    /// Of which registrations the cgroups are.
    registrations: u64,
    guests: Arc<[GuestName]>,
    /// Since when guests have been being killed.
    stopping: Option<Moment>,
    /// No guest runs although the lease is over, so that petting is right.
    empty: bool,
    arm_due: Moment,
    trial_due: Moment,
    /// So that a lasting failure to keep what is armed is told once.
    unkept: bool,
    /// So that it is told once that what is to be disarmed cannot be reached.
    out_of_reach: bool,
    harden: bool,
    last_words: LastWords,
}

impl Protector {
    /// One that holds nothing yet. `harden`: this process is the guard alone, so that its memory is locked and its
    /// priority raised in stop mode. `run_dir`: where guests write the numbers of their processes. `written`: where its last
    /// words go.
    pub(super) fn new(
        wanted: Option<WatchdogFile>,
        harden: bool,
        run_dir: &Path,
        written: Written,
    ) -> std::io::Result<Self> {
        Ok(Self {
            wanted,
            watchdog: None,
            cgroups: Cgroups::new(run_dir),
            registrations: 0,
            guests: Arc::new([]),
            stopping: None,
            empty: false,
            arm_due: Moment(0),
            trial_due: Moment(0),
            unkept: false,
            out_of_reach: false,
            harden,
            last_words: LastWords::begin(written)?,
        })
    }

    /// Takes over a watchdog that another guard has armed and petted until this moment.
    pub(super) fn adopt(&mut self, watchdog: OwnedFd, state: &mut State, keep: &Keep<'_>, now: Moment) {
        match Watchdog::take_over(watchdog, now) {
            Ok(watchdog) => {
                self.watchdog = Some(watchdog);
                self.tell(state, keep);
            }
            // It is armed still, and is opened again in time or resets this host.
            Err(error) => tracing::error!(error = with_causes(&error), "the watchdog could not be taken over"),
        }
    }

    /// The armed watchdog, to be handed over.
    pub(super) fn watchdog(&self) -> Option<BorrowedFd<'_>> {
        self.watchdog.as_ref().map(Watchdog::descriptor)
    }

    /// Does what the duty is at this very moment.
    pub(super) fn act(&mut self, state: &State, now: Moment) {
        if self.registrations != state.registrations() {
            self.take_in(state);
        }
        self.empty = match state.duty(now) {
            Duty::Watch => true,
            Duty::Stop { since } => self.stop(since, now),
        };
        if self.empty
            && let Some(watchdog) = &mut self.watchdog
        {
            watchdog.pet_when_due(now);
        }
    }

    /// How soon [`Self::act`] is to be called again at the latest, if guests are being killed.
    pub(super) fn hurry(&self) -> Option<Duration> {
        (!self.empty).then_some(LOOK_EVERY)
    }

    /// Whether no guest is left. Asked again and again while the lease is over: one that was on its way when it ended is
    /// killed, too.
    fn stop(&mut self, since: Option<Moment>, now: Moment) -> bool {
        let running = self.cgroups.kill();
        if self.stopping.is_none() {
            if running == 0 {
                return true;
            }
            self.last_words.say(Words::Stopping { since, now, running, guests: Arc::clone(&self.guests) });
            self.stopping = Some(now);
        }
        self.cgroups.populated() == 0
    }

    /// Makes ready for the end of the lease what can be, and tells of guests that were killed.
    pub(super) fn prepare(&mut self, state: &mut State, keep: &Keep<'_>, now: Moment) {
        self.take_in(state);
        self.tell_of_the_stopped(state, keep, now);
        if state.memory().stops {
            self.become_hard(state);
            if let Some(watchdog) = &self.watchdog {
                // One that could not be disarmed after its trial, or that could not be noted yet, is armed.
                if state.unarmed().is_some_and(|why| watchdog.unfit() != Some(why)) {
                    self.tell(state, keep);
                }
            } else if self.empty && now >= self.arm_due {
                // It pets, which must not be done for guests that should be gone.
                self.arm_due = now.plus(ARM_AGAIN);
                self.arm(state, keep, now);
            }
        } else if state.memory().counted_on.is_some() {
            if now >= self.arm_due {
                self.arm_due = now.plus(ARM_AGAIN);
                self.disarm(state, keep, now);
            }
        } else if state.unarmed().is_some() && now >= self.trial_due {
            self.trial_due = now.plus(TRY_AGAIN);
            self.try_out(state, now);
        }
    }

    /// Opens the cgroups of the registered guests.
    pub(super) fn take_in(&mut self, state: &State) {
        if self.registrations != state.registrations() {
            self.registrations = state.registrations();
            let guests = &state.memory().guests;
            self.guests = guests.iter().map(|guest| guest.guest.clone()).collect();
            self.cgroups.replace(guests.iter());
        } else if state.memory().stops {
            self.cgroups.open();
        }
    }

    fn tell_of_the_stopped(&mut self, state: &mut State, keep: &Keep<'_>, now: Moment) {
        let Some(began) = self.stopping.filter(|_| self.empty) else { return };
        self.stopping = None;
        self.last_words.say(Words::Stopped { took: now.since(began) });
        state.note_stopped(self.cgroups.take_killed(), now, keep);
    }

    fn arm(&mut self, state: &mut State, keep: &Keep<'_>, now: Moment) {
        if self.is_known_to_be_unnamed(state) {
            return;
        }
        let before = state.unarmed().map(str::to_owned);
        let opened = match &self.wanted {
            None => Err(UNNAMED.to_owned()),
            Some(wanted) => {
                Watchdog::open(wanted, state.memory().counted_on, now).map_err(|error| describe(wanted, &error))
            }
        };
        match opened {
            Ok(watchdog) => {
                tracing::info!(armed = ?watchdog.armed(), "the watchdog is armed");
                self.watchdog = Some(watchdog);
                self.tell(state, keep);
            }
            Err(why) => {
                if before.as_ref() != Some(&why) {
                    tracing::error!(why, "no watchdog is armed");
                }
                state.note_unarmed(why);
            }
        }
    }

    /// So that it is known before stop mode is declared whether there is a watchdog for it.
    fn try_out(&mut self, state: &mut State, now: Moment) {
        if let Some(held) = &self.watchdog {
            let trial = held.unfit().map_or_else(|| Ok(held.armed().clone()), |why| Err(why.to_owned()));
            return state.note_trial(trial);
        }
        if self.is_known_to_be_unnamed(state) {
            return;
        }
        let before = state.unarmed().map(str::to_owned);
        let tried = match &self.wanted {
            None => Err(UNNAMED.to_owned()),
            Some(wanted) => Watchdog::try_out(wanted, now).map_err(|error| describe(wanted, &error)),
        };
        let tried = tried.map(|(armed, held)| {
            tracing::info!(?armed, "the watchdog can be armed");
            self.watchdog = held;
            armed
        });
        if let Err(why) = &tried
            && self.wanted.is_some()
            && before.as_ref() != Some(why)
        {
            tracing::warn!(why, "the watchdog could not be armed");
        }
        state.note_trial(tried);
    }

    /// Whether there is none, and that has been said: then nothing is to be tried again, nor allocated for it.
    fn is_known_to_be_unnamed(&self, state: &State) -> bool {
        self.wanted.is_none() && state.unarmed() == Some(UNNAMED)
    }

    /// One that cannot be reached may be armed still, and somebody may count on it: that is not forgotten before it was disarmed.
    fn disarm(&mut self, state: &mut State, keep: &Keep<'_>, now: Moment) {
        let held = match self.held_or_left(now) {
            Ok(held) => held,
            Err(error) => {
                if !std::mem::replace(&mut self.out_of_reach, true) {
                    let error = with_causes(&error);
                    tracing::error!(error, "the watchdog that is to be disarmed cannot be reached; it is tried again");
                }
                return;
            }
        };
        self.out_of_reach = false;
        self.watchdog = held.and_then(Watchdog::disarm);
        let failure = state.note_disarmed(keep).err();
        match (&failure, self.unkept) {
            (None, _) => tracing::info!("stop mode has ended, and the watchdog with it"),
            (Some(error), false) => tracing::error!(%error, "that the watchdog is disarmed cannot be kept"),
            (Some(_), true) => {}
        }
        self.unkept = failure.is_some();
    }

    /// The watchdog that is held, or one that an earlier guard may have left armed. None: the host file names none, or it was
    /// disarmed when it was looked at.
    fn held_or_left(&mut self, now: Moment) -> Result<Option<Watchdog>, WatchdogError> {
        if let Some(held) = self.watchdog.take() {
            return Ok(Some(held));
        }
        let Some(wanted) = &self.wanted else { return Ok(None) };
        match Watchdog::open(wanted, None, now) {
            Ok(left) => Ok(Some(left)),
            Err(error) if error.is_out_of_reach() => Err(error),
            Err(error) => {
                tracing::warn!(error = with_causes(&error), "the watchdog that is to be disarmed protects nobody");
                Ok(None)
            }
        }
    }

    /// Notes that it is armed: first so that a later guard finds it, then to whoever asks. Of one that protects nobody, that.
    fn tell(&mut self, state: &mut State, keep: &Keep<'_>) {
        let Some(watchdog) = &self.watchdog else { return };
        if let Some(why) = watchdog.unfit() {
            tracing::error!(why, "the watchdog that another guard has armed protects nobody; it is petted on");
            return state.note_unarmed(why.to_owned());
        }
        let failure = state.note_watchdog(watchdog.armed().clone(), keep).err();
        if let Some(error) = failure.as_ref().filter(|_| !self.unkept) {
            tracing::error!(%error, "that the watchdog is armed cannot be kept; it is not told");
        }
        self.unkept = failure.is_some();
    }

    /// What makes the guard wake in time on a machine that is short of memory and processors. Neither is a condition: the
    /// watchdog is there for a guard that comes too late.
    fn become_hard(&mut self, state: &mut State) {
        if !std::mem::take(&mut self.harden) {
            return;
        }
        let memory = mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE).err();
        if let Some(error) = memory {
            tracing::warn!(%error, "the guard's memory cannot be locked (LimitMEMLOCK)");
        }
        let priority = kernel::become_real_time().err();
        if let Some(error) = priority {
            tracing::warn!(%error, "the guard gets no real-time priority (LimitRTPRIO)");
        }
        let [memory, priority] = [memory, priority].map(|error| error.map(|error| error.to_string()));
        state.note_hardened(Hardened { memory, priority });
    }
}

const UNNAMED: &str = "the host file names no watchdog";

fn describe(wanted: &WatchdogFile, error: &WatchdogError) -> String {
    format!("{}: {}", wanted.device.display(), with_causes(error))
}

#[cfg(test)]
mod tests;
