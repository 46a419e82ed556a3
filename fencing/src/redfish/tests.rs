//! What services of Redfish have been seen to do, scripted, and the same client against a real one.

use std::{sync::Arc, time::Duration};

use holdfast_policies::{
    model::{FenceLevel, PowerDevice as Declared, RedfishAuth, RedfishDevice, TlsTrust},
    time::Span,
};

use super::{
    Redfish,
    scripted::{Quirk, Scripted},
    sushy::{FIRST, Sushy},
};
use crate::{
    Answer, Kept, Outcome, Power, PowerDevice, Refusals, machine_id::same_machine, power_off_and_confirm, simulator,
};

const CALL: Duration = Duration::from_secs(20);

async fn refused(settings: RedfishDevice, says: &str) {
    let answer = Redfish::new(settings).off(CALL).await;
    let Answer::Refused { detail, .. } = &answer else { panic!("{says}: {answer:?}") };
    assert!(detail.contains(says) && !detail.contains("secret"), "{says}: {detail}");
}

#[tokio::test]
async fn a_wrong_password_certificate_or_system_is_refused_and_told_apart() {
    let service = Scripted::start().await;
    let right = service.settings();
    let with = |change: fn(&mut RedfishDevice)| {
        let mut settings = right.clone();
        change(&mut settings);
        settings
    };
    let mut wrong = right.clone();
    wrong.password_file = service.password_file("wrong");
    refused(wrong, "does not take this user and password").await;
    refused(with(|it| it.password_file = "/nonexistent".into()), "cannot read password file").await;
    refused(with(|it| it.trust = TlsTrust::Fingerprint("00".repeat(32))), "not the declared one").await;
    refused(with(|it| it.trust = TlsTrust::CaFile("/nonexistent".into())), "cannot read the authorities").await;
    refused(with(|it| it.system = Some("2".to_owned())), "has no system 2; it has 1").await;
    assert_eq!((service.offs(), service.power().as_str()), (0, "On"));
}

#[tokio::test]
async fn an_authority_of_ones_own_is_believed_for_the_name_in_the_certificate() {
    let service = Scripted::start().await;
    let mut settings = RedfishDevice { trust: TlsTrust::CaFile(service.ca_file()), ..service.settings() };
    refused(settings.clone(), "certificate").await;
    settings.address = "localhost".to_owned();
    assert_eq!(Redfish::new(settings.clone()).status(CALL).await, Answer::Confirmed(Power::On));
    // The system's authorities have not signed it.
    settings.trust = TlsTrust::System;
    assert!(!matches!(Redfish::new(settings).status(CALL).await, Answer::Confirmed(_)));
}

#[tokio::test]
async fn a_session_is_used_where_basic_is_switched_off_and_ended_afterwards() {
    let service = Scripted::start().await;
    service.only_sessions();
    refused(service.settings(), "does not take this user and password").await;
    let settings = RedfishDevice { auth: RedfishAuth::Session, ..service.settings() };
    {
        let device: Arc<dyn PowerDevice> = Arc::new(Redfish::new(settings));
        let report = power_off_and_confirm(&[device], CALL, || true).await;
        assert!(matches!(report.outcome, Outcome::Off { .. }), "{report:?}");
        assert_eq!(service.sessions(), (1, 1), "one session for the whole fence");
    }
    all_sessions_end(&service).await;
}

async fn all_sessions_end(service: &Scripted) {
    for _ in 0..400 {
        if service.sessions().0 == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("a session was left behind");
}

/// Each look at a device makes a session, and controllers have room for a dozen.
#[tokio::test]
async fn a_session_is_ended_however_the_service_tells_where_it_is() {
    let service = Scripted::start().await;
    service.only_sessions();
    for quirk in [Quirk::NamesItself, Quirk::NoLocation] {
        service.quirk(quirk);
        let device = Redfish::new(RedfishDevice { auth: RedfishAuth::Session, ..service.settings() });
        assert_eq!(device.status(CALL).await, Answer::Confirmed(Power::On));
        drop(device);
        all_sessions_end(&service).await;
    }
    assert_eq!(service.sessions(), (0, 2));
}

/// As the coordinator asks it while its host is silent.
#[tokio::test]
async fn a_service_that_is_asked_again_and_again_is_logged_in_to_once() {
    let service = Scripted::start().await;
    service.only_sessions();
    let settings = RedfishDevice { auth: RedfishAuth::Session, ..service.settings() };
    let level = FenceLevel::Power(vec![Declared::Redfish(settings)]);
    let (refusals, kept) = (Refusals::default(), Kept::default());
    for _ in 0..3 {
        let devices = refusals.open_to_ask(&level, &kept);
        assert_eq!(devices[0].status(CALL).await, Answer::Confirmed(Power::On));
    }
    assert_eq!(service.sessions(), (1, 1));
    drop(kept);
    all_sessions_end(&service).await;
    assert_eq!(service.sessions(), (0, 1));
}

#[tokio::test]
async fn a_service_that_wants_a_slash_at_the_end_of_each_path_is_asked_so() {
    let service = Scripted::start().await;
    service.quirk(Quirk::WantsSlashes);
    let device = Redfish::new(RedfishDevice { auth: RedfishAuth::Session, ..service.settings() });
    assert_eq!(device.off(CALL).await, Answer::Confirmed(()));
    assert_eq!((service.offs(), service.power().as_str()), (1, "Off"));
    drop(device);
    all_sessions_end(&service).await;
}

/// Whether it starts, and so knows nobody yet, is seen by its root, which has a slash at its end by the standard.
#[tokio::test]
async fn a_service_that_wants_no_slash_at_the_end_of_its_root_is_not_taken_for_one_that_starts() {
    let service = Scripted::start().await;
    service.quirk(Quirk::WantsNoSlashes);
    assert_eq!(service.device().status(CALL).await, Answer::Confirmed(Power::On));
    let password_file = service.password_file("wrong");
    refused(RedfishDevice { password_file, ..service.settings() }, "does not take this user and password").await;
}

/// To find the system takes five requests with a session.
#[tokio::test]
async fn a_service_that_is_slow_at_each_of_its_requests_is_heard_to_the_end() {
    let service = Scripted::start().await;
    service.quirk(Quirk::Slow(Duration::from_millis(1_100)));
    let settings = RedfishDevice { auth: RedfishAuth::Session, timeout: Span::secs(40), ..service.settings() };
    let device = Redfish::new(settings);
    assert_eq!(device.status(device.patience()).await, Answer::Confirmed(Power::On));
}

#[tokio::test]
async fn a_request_that_is_lost_does_not_take_all_the_time_of_the_level() {
    let service = Scripted::start().await;
    service.quirk(Quirk::Slow(Duration::from_secs(60)));
    let device = Redfish::new(RedfishDevice { timeout: Span::secs(40), ..service.settings() });
    let Answer::Unknown { detail } = device.status(device.patience()).await else { panic!() };
    assert!(detail.contains("no answer to a request"), "{detail}");
}

#[tokio::test]
async fn to_switch_off_what_is_off_succeeds_however_the_service_calls_it() {
    let service = Scripted::start().await;
    service.quirk(Quirk::OffWhenOff);
    service.set_power("Off");
    assert_eq!(service.device().off(CALL).await, Answer::Confirmed(()));
    assert_eq!(service.offs(), 1);
}

#[tokio::test]
async fn reset_types_are_found_where_newer_services_tell_them() {
    let service = Scripted::start().await;
    service.quirk(Quirk::ActionInfo);
    assert_eq!(service.device().off(CALL).await, Answer::Confirmed(()));
    assert_eq!(service.power(), "Off");
}

#[tokio::test]
async fn a_task_is_an_acceptance_unless_it_has_failed_already() {
    let service = Scripted::start().await;
    service.quirk(Quirk::Task("Exception"));
    refused(service.settings(), "ended as Exception").await;
    service.quirk(Quirk::Task("Running"));
    assert_eq!(service.device().off(CALL).await, Answer::Confirmed(()));
}

#[tokio::test]
async fn a_task_is_looked_after_and_its_failure_is_told() {
    let service = Scripted::start().await;
    service.quirk(Quirk::TaskFails);
    refused(service.settings(), "ended as Exception: the supply does not obey").await;
    assert_eq!((service.offs(), service.power().as_str()), (1, "On"));
}

#[tokio::test]
async fn sessions_are_made_where_the_service_says() {
    let service = Scripted::start().await;
    service.only_sessions();
    service.quirk(Quirk::OtherSessions);
    let settings = RedfishDevice { auth: RedfishAuth::Session, ..service.settings() };
    assert_eq!(Redfish::new(settings).off(CALL).await, Answer::Confirmed(()));
    assert_eq!((service.sessions().1, service.power().as_str()), (1, "Off"));
}

#[tokio::test]
async fn a_service_that_offers_no_hard_off_or_leads_astray_is_refused() {
    let service = Scripted::start().await;
    for (quirk, says) in [
        (Quirk::GracefulOnly, "only GracefulShutdown"),
        (Quirk::Elsewhere, "which is not its own"),
        (Quirk::Redirects, "sends us elsewhere"),
        (Quirk::TwoSystems, "has 2 systems (1, 2): say which one"),
        (Quirk::Answers(403), "may not do this"),
    ] {
        service.quirk(quirk);
        refused(service.settings(), says).await;
    }
    assert_eq!((service.offs(), service.power().as_str()), (0, "On"));
}

#[tokio::test]
async fn busy_endless_odd_and_absent_services_are_unknown() {
    let service = Scripted::start().await;
    for quirk in [Quirk::Answers(503), Quirk::Answers(409), Quirk::Endless, Quirk::Slow(Duration::from_secs(60))] {
        service.quirk(quirk.clone());
        let answer = service.device().off(Duration::from_secs(3)).await;
        assert!(matches!(answer, Answer::Unknown { .. }), "{quirk:?}: {answer:?}");
    }
    service.quirk(Quirk::None);
    service.set_power("Reset");
    assert!(matches!(service.device().status(CALL).await, Answer::Unknown { .. }));
    let folder = tempfile::tempdir().unwrap();
    let password_file = folder.path().join("password");
    std::fs::copy(service.password_file("secret"), &password_file).unwrap();
    let settings = RedfishDevice { password_file, ..service.settings() };
    drop(service);
    assert!(matches!(Redfish::new(settings).status(CALL).await, Answer::Unknown { .. }));
}

#[tokio::test]
async fn a_service_that_is_starting_is_unknown_and_refuses_nothing() {
    let service = Scripted::start().await;
    let session = RedfishDevice { auth: RedfishAuth::Session, ..service.settings() };
    for quirk in [Quirk::Answers(404), Quirk::Answers(503), Quirk::Starting, Quirk::NoSystem] {
        service.quirk(quirk.clone());
        for settings in [service.settings(), session.clone()] {
            let device = Redfish::new(settings);
            assert!(matches!(device.status(CALL).await, Answer::Unknown { .. }), "{quirk:?}");
            assert!(matches!(device.off(CALL).await, Answer::Unknown { .. }), "{quirk:?}");
        }
    }
    service.quirk(Quirk::None);
    assert_eq!(service.device().status(CALL).await, Answer::Confirmed(Power::On));
}

#[tokio::test]
async fn a_session_that_is_over_is_no_refusal_and_the_next_call_logs_in_anew() {
    let service = Scripted::start().await;
    let device = Redfish::new(RedfishDevice { auth: RedfishAuth::Session, ..service.settings() });
    assert_eq!(device.status(CALL).await, Answer::Confirmed(Power::On));
    service.forget_sessions();
    let answer = device.status(CALL).await;
    assert!(matches!(&answer, Answer::Unknown { detail } if detail.contains("ended our session")), "{answer:?}");
    // The end of the old session, which is said in the background, may meet the new one.
    for _ in 0..100 {
        if device.status(CALL).await == Answer::Confirmed(Power::On) {
            return;
        }
    }
    panic!("it does not log in again");
}

#[tokio::test]
async fn what_is_still_going_off_is_on() {
    let service = Scripted::start().await;
    service.set_power("PoweringOff");
    assert_eq!(service.device().status(CALL).await, Answer::Confirmed(Power::On));
}

#[tokio::test]
async fn a_real_service_is_switched_off_and_on_however_long_it_takes_to_show() {
    if simulator::left_out("a_real_service_is_switched_off_and_on_however_long_it_takes_to_show") {
        return;
    }
    let service = Sushy::start(false).await;
    let device: Arc<dyn PowerDevice> = Arc::new(service.device());
    let Answer::Confirmed(id) = device.machine_id(CALL).await else { panic!() };
    assert!(same_machine(&id, FIRST), "{id}");
    let report = power_off_and_confirm(&[Arc::clone(&device)], Duration::from_secs(60), || true).await;
    let Outcome::Off { took, .. } = &report.outcome else { panic!("{report:?}") };
    eprintln!("off after {took:?}");
    assert_eq!(device.on(CALL).await, Answer::Confirmed(()));
    for _ in 0..300 {
        if device.status(CALL).await == Answer::Confirmed(Power::On) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("it does not come on again");
}

#[tokio::test]
async fn a_real_service_tells_a_wrong_password_and_a_missing_name_apart() {
    if simulator::left_out("a_real_service_tells_a_wrong_password_and_a_missing_name_apart") {
        return;
    }
    let service = Sushy::start(true).await;
    let right = service.settings();
    refused(RedfishDevice { password_file: service.password_file("wrong"), ..right.clone() }, "user and password")
        .await;
    refused(RedfishDevice { system: None, ..right.clone() }, "the service has 2 systems").await;
    refused(RedfishDevice { system: Some("c".to_owned()), ..right.clone() }, "has no system c").await;
    // The emulator has no sessions, and says so by asking who we are.
    refused(RedfishDevice { auth: RedfishAuth::Session, ..right }, "user and password").await;
    assert_eq!(service.device().status(CALL).await, Answer::Confirmed(Power::On));
}
