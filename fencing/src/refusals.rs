//! Devices that refuse again and again are left alone for a while, whoever asks next: every further try with a wrong password
//! may lock its user out, for people too.
//!
//! ```text
//! asked --refused, for the third time in a row--> left alone --5 minutes, or an answer to a test--> asked
//! ```
//! What is remembered is of one process: the password file of another host may be the right one. What a test is refused does not
//! count: whoever has to be switched off is not left alone because somebody has asked beforehand whether that would work.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use holdfast_policies::model::{FenceLevel, PowerDevice as Declared};
use tokio::time::Instant;

use crate::{
    device::{Answer, Power, PowerDevice},
    kept::Kept,
    open,
};

/// Refusals in a row after which a device is left alone. Controllers lock users out after some five.
pub(crate) const REFUSALS_MAX: u32 = 3;

/// For how long it is left alone: controllers that lock out count for some minutes.
const LEFT_ALONE_FOR: Duration = Duration::from_secs(300);

/// Devices that are remembered; more than a cluster has that refuse at once.
const REMEMBERED_MAX: usize = 256;

/// Which devices have refused this process; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Refusals(Arc<Mutex<Vec<Refused>>>);

/// A device as it is declared: one that is declared anew is another.
#[derive(Debug)]
struct Refused {
    device: Declared,
    times: u32,
    newest: Instant,
    detail: String,
}

impl Refusals {
    /// The power devices of a level; none where it has none. Each that has refused too often refuses here, without being
    /// contacted. Nothing is contacted before the first call.
    #[must_use]
    pub fn open(&self, level: &FenceLevel) -> Vec<Arc<dyn PowerDevice>> {
        self.opened(level, true)
    }

    /// The same for whoever only asks, and will ask again soon: what was opened before is kept for that.
    #[must_use]
    pub fn open_to_ask(&self, level: &FenceLevel, kept: &Kept) -> Vec<Arc<dyn PowerDevice>> {
        let opened = |declared| self.spare(kept.device(declared, || open::device(declared)), declared, true);
        level.devices().iter().map(opened).collect()
    }

    /// The same for a test, which asks whatever has been refused before: its success ends the rest, and its refusal begins none.
    #[must_use]
    pub fn open_to_test(&self, level: &FenceLevel) -> Vec<Arc<dyn PowerDevice>> {
        self.opened(level, false)
    }

    fn opened(&self, level: &FenceLevel, heeds: bool) -> Vec<Arc<dyn PowerDevice>> {
        let opened = open::devices(level).into_iter().zip(level.devices());
        let spared = opened.map(|(inner, declared)| self.spare(inner, declared, heeds));
        spared.collect()
    }

    fn spare(&self, inner: Arc<dyn PowerDevice>, declared: &Declared, heeds: bool) -> Arc<dyn PowerDevice> {
        Arc::new(Spared { inner, declared: declared.clone(), refusals: self.clone(), heeds })
    }

    /// Why the device is left alone now, if it is.
    fn why_left_alone(&self, device: &Declared) -> Option<String> {
        let book = self.book();
        let known = book.iter().find(|known| known.device == *device)?;
        let rests = known.times >= REFUSALS_MAX && known.newest.elapsed() < LEFT_ALONE_FOR;
        let detail = &known.detail;
        rests.then(|| {
            format!("left alone for some minutes, because it has refused {REFUSALS_MAX} times in a row: {detail}")
        })
    }

    fn note<T>(&self, device: &Declared, answer: &Answer<T>) {
        let mut book = self.book();
        match answer {
            Answer::Confirmed(_) => book.retain(|known| known.device != *device),
            Answer::Refused { detail, .. } => {
                let known = book.iter().position(|known| known.device == *device);
                let before = known.map(|position| book.remove(position));
                let before = before.filter(|known| known.newest.elapsed() < LEFT_ALONE_FOR);
                let times = before.map_or(0, |known| known.times).saturating_add(1);
                if book.len() >= REMEMBERED_MAX {
                    book.remove(0);
                }
                book.push(Refused { device: device.clone(), times, newest: Instant::now(), detail: detail.clone() });
            }
            Answer::Unknown { .. } => {}
        }
    }

    fn book(&self) -> MutexGuard<'_, Vec<Refused>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A device that is left alone when it has refused too often.
struct Spared {
    inner: Arc<dyn PowerDevice>,
    declared: Declared,
    refusals: Refusals,
    heeds: bool,
}

impl Spared {
    fn why_left_alone(&self) -> Option<String> {
        self.refusals.why_left_alone(&self.declared).filter(|_| self.heeds)
    }

    fn noted<T>(&self, answer: Answer<T>) -> Answer<T> {
        if self.heeds || matches!(answer, Answer::Confirmed(_)) {
            self.refusals.note(&self.declared, &answer);
        }
        answer
    }
}

#[async_trait]
impl PowerDevice for Spared {
    async fn status(&self, deadline: Duration) -> Answer<Power> {
        match self.why_left_alone() {
            Some(detail) => Answer::refused(detail),
            None => self.noted(self.inner.status(deadline).await),
        }
    }

    async fn off(&self, deadline: Duration) -> Answer<()> {
        match self.why_left_alone() {
            Some(detail) => Answer::refused(detail),
            None => self.noted(self.inner.off(deadline).await),
        }
    }

    async fn on(&self, deadline: Duration) -> Answer<()> {
        match self.why_left_alone() {
            Some(detail) => Answer::refused(detail),
            None => self.noted(self.inner.on(deadline).await),
        }
    }

    fn patience(&self) -> Duration {
        self.inner.patience()
    }

    fn goes_on_for(&self) -> Duration {
        self.inner.goes_on_for()
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }

    /// That a device cannot tell is no refusal to let us in.
    async fn machine_id(&self, deadline: Duration) -> Answer<String> {
        self.inner.machine_id(deadline).await
    }
}

#[cfg(test)]
mod tests {
    use holdfast_policies::{model::CommandDevice, time::Span};

    use super::*;
    use crate::{
        fake::{FakeDevice, Manner},
        power_off_and_confirm,
        report::Outcome,
    };

    const CALL: Duration = Duration::from_secs(1);

    fn declared(status: &str) -> Declared {
        let status = vec![status.to_owned()];
        let timeout = Span::secs(20);
        Declared::Command(CommandDevice {
            status,
            off: Vec::new(),
            on: None,
            machine_id: None,
            wiring_verified_by: None,
            timeout,
        })
    }

    /// Whether a question reaches the device: only then it is answered.
    async fn reaches(device: &dyn PowerDevice) -> bool {
        match device.status(CALL).await {
            Answer::Confirmed(_) => true,
            Answer::Refused { detail, .. } => !detail.contains("left alone"),
            Answer::Unknown { .. } => true,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_device_that_refuses_three_times_is_left_alone_for_five_minutes_whoever_asks() {
        let (refusals, fake) = (Refusals::default(), Arc::new(FakeDevice::new("x", Manner::Refuses)));
        for _ in 0..3 {
            let attempt = refusals.spare(Arc::clone(&fake) as Arc<dyn PowerDevice>, &declared("a"), true);
            assert!(reaches(attempt.as_ref()).await);
        }
        fake.set_manner(Manner::Works);
        let next = refusals.spare(Arc::clone(&fake) as Arc<dyn PowerDevice>, &declared("a"), true);
        assert!(!reaches(next.as_ref()).await);
        let report = power_off_and_confirm(&[Arc::clone(&next)], Duration::from_secs(20), || true).await;
        let Outcome::Unknown { detail } = &report.outcome else { panic!("{report:?}") };
        assert!(detail.contains("scripted refusal"), "{detail}");
        assert_eq!(fake.offs(), 0);
        let anew = refusals.spare(Arc::clone(&fake) as Arc<dyn PowerDevice>, &declared("b"), true);
        assert!(reaches(anew.as_ref()).await, "one that is declared anew is another");
        tokio::time::advance(LEFT_ALONE_FOR).await;
        assert!(reaches(next.as_ref()).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_test_asks_all_the_same_and_its_success_ends_the_rest() {
        let (refusals, fake) = (Refusals::default(), Arc::new(FakeDevice::new("x", Manner::Refuses)));
        let spare = |heeds| refusals.spare(Arc::clone(&fake) as Arc<dyn PowerDevice>, &declared("a"), heeds);
        let (fence, test) = (spare(true), spare(false));
        for _ in 0..3 {
            assert!(reaches(fence.as_ref()).await);
        }
        assert!(!reaches(fence.as_ref()).await && reaches(test.as_ref()).await);
        fake.set_manner(Manner::Works);
        assert!(reaches(test.as_ref()).await && reaches(fence.as_ref()).await);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_test_is_refused_keeps_no_fence_from_asking() {
        let (refusals, fake) = (Refusals::default(), Arc::new(FakeDevice::new("x", Manner::Refuses)));
        let spare = |heeds| refusals.spare(Arc::clone(&fake) as Arc<dyn PowerDevice>, &declared("a"), heeds);
        let (fence, test) = (spare(true), spare(false));
        for _ in 0..5 {
            assert!(reaches(test.as_ref()).await);
        }
        fake.set_manner(Manner::Works);
        assert!(reaches(fence.as_ref()).await, "somebody has put the password right, and a host is to be switched off");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_no_refusal_and_an_answer_makes_up_for_those_before() {
        let (refusals, fake) = (Refusals::default(), Arc::new(FakeDevice::new("x", Manner::Fails)));
        let device = refusals.spare(Arc::clone(&fake) as Arc<dyn PowerDevice>, &declared("a"), true);
        for manner in [Manner::Fails, Manner::Refuses, Manner::Works, Manner::Refuses, Manner::Fails, Manner::Refuses] {
            fake.set_manner(manner);
            assert!(reaches(device.as_ref()).await, "{manner:?}");
        }
        fake.set_manner(Manner::Works);
        assert!(reaches(device.as_ref()).await);
    }
}
