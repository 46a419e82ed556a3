//! Switch a host on and wait until a device of its level says that it is on.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout};

use crate::{
    device::{Answer, Power, PowerDevice},
    together::{Running, all},
};

/// Pause between readings.
const PAUSE: Duration = Duration::from_millis(500);
/// Rest before an accepted order is given again: a machine that has just gone off ignores it for some seconds.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

/// Switches a host on through all devices of one level: each feeds a power supply of its own. Ends by `limit`; may be
/// dropped at any point.
///
/// # Errors
/// What each device that is not on said last.
pub async fn power_on_and_confirm(devices: &[Arc<dyn PowerDevice>], limit: Duration) -> Result<(), String> {
    let switched = devices.iter().map(|device| Box::pin(switch_on(device.as_ref(), limit)) as Running<'_, _>);
    let errors: Vec<String> = all(switched.collect()).await.into_iter().filter_map(Result::err).collect();
    if errors.is_empty() { Ok(()) } else { Err(errors.join("; ")) }
}

async fn switch_on(device: &dyn PowerDevice, limit: Duration) -> Result<(), String> {
    let began = Instant::now();
    let left = || limit.saturating_sub(began.elapsed());
    let mut ordered: Option<Instant> = None;
    let mut said = "it was not asked".to_owned();
    while !left().is_zero() {
        let deadline = left().min(device.patience());
        match timeout(deadline, device.status(deadline)).await {
            Ok(Answer::Confirmed(Power::On)) => return Ok(()),
            Ok(Answer::Confirmed(Power::Off)) => said = "it stays off".to_owned(),
            Ok(Answer::Refused { detail, .. } | Answer::Unknown { detail }) => said = detail,
            Err(_) => said = "it does not answer".to_owned(),
        }
        if ordered.is_none_or(|at| at.elapsed() >= AGAIN_AFTER) {
            ordered = Some(Instant::now());
            let deadline = left().min(device.patience());
            match timeout(deadline, device.on(deadline)).await {
                Ok(Answer::Confirmed(())) | Err(_) => {}
                Ok(Answer::Refused { detail, .. } | Answer::Unknown { detail }) => said = detail,
            }
        }
        sleep(PAUSE.min(left())).await;
    }
    Err(format!("{}: {said}", device.describe()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{FakeDevice, Manner};

    #[tokio::test(start_paused = true)]
    async fn every_device_of_a_level_is_switched_on() {
        for (manners, works) in [
            (vec![Manner::Works, Manner::Slow(Duration::from_secs(1))], true),
            (vec![Manner::Works, Manner::Stuck], false),
            (vec![Manner::Mute], false),
        ] {
            let fakes: Vec<_> = manners.iter().map(|manner| Arc::new(FakeDevice::new("x", *manner))).collect();
            fakes.iter().for_each(|fake| fake.set_power(Power::Off));
            let devices: Vec<_> = fakes.iter().map(|fake| Arc::clone(fake) as Arc<dyn PowerDevice>).collect();
            assert_eq!(power_on_and_confirm(&devices, Duration::from_secs(30)).await.is_ok(), works, "{manners:?}");
        }
    }
}
