//! Devices that are asked again and again are kept for a while, with what they have found and with their session.
//!
//! A host that is silent has its power asked for several times a second. To find a system of a Redfish service takes up to five requests
//! each time, and where sessions are wanted a login and a logout, of which each fills a line of the controller's log.
//!
//! ```text
//! asked --> kept --nobody has asked for 20 s, or it is five minutes old--> given up, and its session ended
//!            ^--asked again--'
//! ```
//! That is for questions alone. What is to switch a host off, or is tested, is opened anew, and reads its password anew.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use holdfast_policies::model::PowerDevice as Declared;
use tokio::time::{Instant, sleep};

use crate::device::PowerDevice;

/// For how long a device is kept that nobody asks. Services end a session that is not used after 30 s at the soonest (Redfish,
/// `SessionTimeout`), and a session that has ended there costs a question its answer.
const IDLE: Duration = Duration::from_secs(20);

/// For how long it is kept at most: then its password, its certificates and its system are looked at anew, whoever has changed them.
const AGE_MAX: Duration = Duration::from_secs(300);

/// Devices that are kept; more than a cluster has silent hosts at once. One more is opened anew each time.
const KEPT_MAX: usize = 64;

/// What is kept by this process; cheap to clone.
#[derive(Clone, Default)]
pub struct Kept(Arc<Mutex<Vec<One>>>);

/// A device as it is declared: one that is declared anew is another.
struct One {
    declared: Declared,
    device: Arc<dyn PowerDevice>,
    opened: Instant,
    asked: Instant,
}

impl One {
    fn is_fresh(&self, now: Instant) -> bool {
        now.duration_since(self.asked) < IDLE && now.duration_since(self.opened) < AGE_MAX
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kept({})", locked(&self.0).len())
    }
}

impl Kept {
    /// The device that is kept, or one that is opened. Only of a Redfish service there is anything to keep.
    pub(crate) fn device(
        &self,
        declared: &Declared,
        open: impl FnOnce() -> Arc<dyn PowerDevice>,
    ) -> Arc<dyn PowerDevice> {
        if !matches!(declared, Declared::Redfish(_)) {
            return open();
        }
        let (now, mut all) = (Instant::now(), locked(&self.0));
        all.retain(|one| one.is_fresh(now));
        if let Some(known) = all.iter_mut().find(|one| one.declared == *declared) {
            known.asked = now;
            return Arc::clone(&known.device);
        }
        let device = open();
        // Without a runtime there is nobody to give it up in time.
        if let Ok(runtime) = tokio::runtime::Handle::try_current()
            && all.len() < KEPT_MAX
        {
            let (declared, kept) = (declared.clone(), Arc::clone(&device));
            all.push(One { declared, device: kept, opened: now, asked: now });
            runtime.spawn(give_up_in_time(Arc::downgrade(&self.0), Arc::downgrade(&device)));
        }
        device
    }
}

/// Ends with the device, or with all that is kept.
async fn give_up_in_time(all: Weak<Mutex<Vec<One>>>, device: Weak<dyn PowerDevice>) {
    while device.strong_count() > 0 {
        sleep(IDLE / 2).await;
        let Some(all) = all.upgrade() else { return };
        let now = Instant::now();
        locked(&all).retain(|one| one.is_fresh(now));
    }
}

fn locked(all: &Mutex<Vec<One>>) -> MutexGuard<'_, Vec<One>> {
    all.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use holdfast_policies::{
        model::{CommandDevice, RedfishAuth, RedfishDevice, TlsTrust},
        time::Span,
    };

    use super::*;
    use crate::fake::{FakeDevice, Manner};

    fn redfish(address: &str) -> Declared {
        Declared::Redfish(RedfishDevice {
            address: address.to_owned(),
            port: 443,
            user: "admin".to_owned(),
            password_file: "/etc/holdfast/bmc".into(),
            auth: RedfishAuth::Session,
            system: None,
            trust: TlsTrust::System,
            wiring_verified_by: None,
            timeout: Span::secs(20),
        })
    }

    fn command() -> Declared {
        Declared::Command(CommandDevice {
            status: vec!["status".to_owned()],
            off: Vec::new(),
            on: None,
            machine_id: None,
            wiring_verified_by: None,
            timeout: Span::secs(20),
        })
    }

    fn opened() -> Arc<dyn PowerDevice> {
        Arc::new(FakeDevice::new("x", Manner::Works))
    }

    #[tokio::test(start_paused = true)]
    async fn a_device_that_is_asked_again_and_again_is_opened_once_in_five_minutes() {
        let (kept, opens) = (Kept::default(), Cell::new(0));
        let ask = |declared: &Declared| {
            drop(kept.device(declared, || {
                opens.set(opens.get() + 1);
                opened()
            }));
        };
        ask(&redfish("a"));
        for _ in 0..29 {
            sleep(IDLE / 2).await;
            ask(&redfish("a"));
        }
        assert_eq!(opens.get(), 1);
        sleep(IDLE / 2).await;
        ask(&redfish("a"));
        assert_eq!(opens.get(), 2, "its password may be another by now");
        ask(&redfish("b"));
        assert_eq!(opens.get(), 3, "one that is declared otherwise is another");
        for expected in [4, 5] {
            ask(&command());
            assert_eq!(opens.get(), expected, "there is nothing of it to keep");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_device_that_nobody_asks_any_more_is_given_up_without_another_question() {
        let kept = Kept::default();
        let device = Arc::downgrade(&kept.device(&redfish("a"), opened));
        assert_eq!(device.strong_count(), 1);
        sleep(IDLE * 2).await;
        assert_eq!(device.strong_count(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_devices_are_kept_than_there_is_room_for() {
        let kept = Kept::default();
        for number in 0..2 * KEPT_MAX {
            drop(kept.device(&redfish(&number.to_string()), opened));
        }
        assert_eq!(format!("{kept:?}"), format!("Kept({KEPT_MAX})"));
    }
}
