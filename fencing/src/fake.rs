//! A scripted power device, for tests of whoever uses power devices. It switches nothing.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    device::{Answer, Power, PowerDevice},
    newest_off::NewestOff,
};

/// How a fake device behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Does at once what it is told.
    Works,
    /// Does what it is told, and answers this late.
    Slow(Duration),
    /// Accepts an off, and shows it this much later.
    ShowsAfter(Duration),
    /// Accepts an off and does nothing.
    Stuck,
    /// Answers that something went wrong.
    Fails,
    /// Answers that it will not, as with a wrong password.
    Refuses,
    /// Never answers.
    Mute,
}

/// A power device that exists only in memory.
#[derive(Debug)]
pub struct FakeDevice {
    name: String,
    state: Mutex<State>,
    newest_off: NewestOff,
}

#[derive(Debug)]
struct State {
    manner: Manner,
    off_from: Option<Instant>,
    offs: u32,
    machine_id: String,
}

impl FakeDevice {
    /// A device whose host is on.
    #[must_use]
    pub fn new(name: impl Into<String>, manner: Manner) -> Self {
        let machine_id = "00112233-4455-6677-8899-aabbccddeeff".to_owned();
        let state = Mutex::new(State { manner, off_from: None, offs: 0, machine_id });
        Self { name: name.into(), state, newest_off: NewestOff::default() }
    }

    /// Behaves like this from here on.
    pub fn set_manner(&self, manner: Manner) {
        self.state().manner = manner;
    }

    /// Switches the host on or off by hand.
    pub fn set_power(&self, power: Power) {
        self.state().off_from = (power == Power::Off).then(Instant::now);
    }

    /// Whether the host has power.
    #[must_use]
    pub fn power(&self) -> Power {
        match self.state().off_from {
            Some(from) if from <= Instant::now() => Power::Off,
            _ => Power::On,
        }
    }

    /// How many offs have arrived.
    #[must_use]
    pub fn offs(&self) -> u32 {
        self.state().offs
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer<T>(&self, deadline: Duration, value: impl FnOnce(&Self) -> T + Send) -> Answer<T> {
        let manner = self.state().manner;
        match manner {
            Manner::Works | Manner::Stuck | Manner::ShowsAfter(_) => Answer::Confirmed(value(self)),
            Manner::Fails => Answer::unknown("scripted failure"),
            Manner::Refuses => Answer::denied("scripted refusal"),
            Manner::Mute => {
                sleep(deadline).await;
                Answer::unknown(format!("no answer within {deadline:?}"))
            }
            Manner::Slow(late) => {
                let value = value(self);
                let answer = timeout(deadline, sleep(late)).await;
                answer.map_or_else(
                    |_| Answer::unknown(format!("no answer within {deadline:?}")),
                    |()| Answer::Confirmed(value),
                )
            }
        }
    }

    fn take_off(&self) {
        let mut state = self.state();
        state.offs += 1;
        let shows = match state.manner {
            Manner::Works | Manner::Slow(_) => Some(Instant::now()),
            Manner::ShowsAfter(later) => Some(Instant::now() + later),
            Manner::Stuck | Manner::Fails | Manner::Refuses | Manner::Mute => None,
        };
        state.off_from = state.off_from.or(shows);
    }

    fn take_on(&self) {
        let mut state = self.state();
        match state.manner {
            Manner::Works | Manner::Slow(_) | Manner::ShowsAfter(_) => state.off_from = None,
            Manner::Stuck | Manner::Fails | Manner::Refuses | Manner::Mute => {}
        }
    }
}

#[async_trait]
impl PowerDevice for FakeDevice {
    async fn status(&self, deadline: Duration) -> Answer<Power> {
        self.answer(deadline, Self::power).await
    }

    async fn off(&self, deadline: Duration) -> Answer<()> {
        let off = async {
            self.newest_off.sends();
            self.answer(deadline, Self::take_off).await
        };
        self.newest_off.watch(off).await
    }

    async fn on(&self, deadline: Duration) -> Answer<()> {
        self.answer(deadline, Self::take_on).await
    }

    fn goes_on_for(&self) -> Duration {
        self.newest_off.goes_on_for()
    }

    fn describe(&self) -> String {
        format!("fake {}", self.name)
    }

    async fn machine_id(&self, deadline: Duration) -> Answer<String> {
        self.answer(deadline, |fake| fake.state().machine_id.clone()).await
    }
}
