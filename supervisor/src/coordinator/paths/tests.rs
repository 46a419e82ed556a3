//! Tests of power devices: for how long, and what is told of them.

use async_trait::async_trait;
use holdfast_fencing::fake::{FakeDevice, Manner};
use holdfast_policies::{
    model::{CommandDevice, PowerDevice as Declared},
    time::Span,
};

use super::*;

/// At night names are mistyped.
#[test]
fn whoever_has_the_devices_of_an_unknown_host_asked_is_told_which_hosts_there_are() {
    let state = crate::desk::tests::failed_over();
    let (known, unknown) = (crate::desk::tests::host("h1"), crate::desk::tests::host("nowhere"));
    let why = Denied::Unknown("there is no host nowhere; the hosts are h1, h2".to_owned());
    assert_eq!(askers(&state, &unknown, None), Err(why.clone()));
    assert_eq!(askers(&state, &known, Some(unknown)), Err(why));
}

const OWN: &str = "33221100-5544-7766-8899-aabbccddeeff";

fn command(timeout: u64) -> FenceLevel {
    let words = |word: &str| vec![word.to_owned()];
    FenceLevel::Power(vec![Declared::Command(CommandDevice {
        status: words("status"),
        off: words("off"),
        on: None,
        machine_id: None,
        wiring_verified_by: None,
        timeout: Span::secs(timeout),
    })])
}

#[test]
fn a_device_has_as_long_as_within_a_fence_and_no_longer_than_its_executor_has() {
    let longest = |timeouts: &[u64]| {
        let levels = timeouts.iter().enumerate().map(|(row, timeout)| (row, command(*timeout)));
        longest(&PathQuestion { levels: levels.collect() })
    };
    assert_eq!(longest(&[8, 4]), Duration::from_secs(12), "twice three quarters of the time-out of the slowest");
    assert_eq!(longest(&[600]), Duration::from_secs(75));
    assert_eq!(longest(&[]), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_slow_device_is_not_called_dead() {
    let slow = FakeDevice::new("x", Manner::Slow(Duration::from_secs(4)));
    let told = told(&slow).await;
    assert!(told.power == Power::On && matches!(told.machine, ToldMachine::Id { .. }), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn that_a_device_does_not_let_its_asker_in_is_told_apart_from_silence() {
    for (manner, denied) in [(Manner::Refuses, true), (Manner::Fails, false), (Manner::Works, false)] {
        let said = told(&FakeDevice::new("x", manner)).await;
        assert_eq!(judged(said, OWN, true).denied, denied, "{manner:?}");
    }
}

/// A device that has as long for one call as its declaration says.
struct Declaring(FakeDevice, Duration);

#[async_trait]
impl PowerDevice for Declaring {
    async fn status(&self, deadline: Duration) -> Answer<DevicePower> {
        self.0.status(deadline).await
    }

    async fn off(&self, deadline: Duration) -> Answer<()> {
        self.0.off(deadline).await
    }

    async fn on(&self, deadline: Duration) -> Answer<()> {
        self.0.on(deadline).await
    }

    fn patience(&self) -> Duration {
        self.1
    }

    fn describe(&self) -> String {
        self.0.describe()
    }

    async fn machine_id(&self, deadline: Duration) -> Answer<String> {
        self.0.machine_id(deadline).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_needs_a_second_and_a_half_for_each_packet_tells_its_machine_too() {
    // Two seconds in haste, then eleven packets, with `timeout: 90s`.
    let slow = FakeDevice::new("x", Manner::Slow(Duration::from_millis(18_500)));
    let told = told(&Declaring(slow, Duration::from_millis(67_500))).await;
    assert!(told.power == Power::On && matches!(told.machine, ToldMachine::Id { .. }), "{told:?}");
    let mute = Declaring(FakeDevice::new("x", Manner::Mute), Duration::from_secs(450));
    assert!(super::told(&mute).await.took_ms <= 40_000, "one that hangs is not waited for as long as it says");
}

#[test]
fn only_a_uuid_of_the_firmware_that_no_other_host_has_is_compared() {
    let told = |id: &str, own: &str, unique| compared(id.to_owned(), own, unique);
    assert_eq!(told(OWN, OWN, true), Machine::Same);
    assert_eq!(told("00112233-4455-6677-8899-aabbccddeeff", OWN, true), Machine::Same);
    let other = "33221100-5544-7766-8899-aabbccddee00";
    assert_eq!(told(other, OWN, true), Machine::Other { says: other.to_owned() });
    for (own, unique) in [(OWN, false), ("33221100554477668899aabbccddeeff", true), ("hv-a", true), ("", true)] {
        assert!(matches!(told(other, own, unique), Machine::Untold { .. }), "{own}");
    }
}
