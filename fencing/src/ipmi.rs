//! Baseboard management controllers over IPMI 2.0, by way of `ipmitool`.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use holdfast_policies::{
    model::{IpmiDevice, IpmiInterface, IpmiPrivilege},
    observe::clean,
};

use crate::{
    causes::not_asked,
    device::{Answer, Power, PowerDevice, most_of},
    machine_id::normalize,
    newest_off::NewestOff,
    password,
    program::{Ended, not_run, run},
};

/// One controller.
#[derive(Debug)]
pub struct Ipmi {
    settings: IpmiDevice,
    /// `ipmitool`; a test has another one.
    program: String,
    /// It has answered only when it was given longer for each packet.
    is_slow: AtomicBool,
    pub(crate) newest_off: NewestOff,
}

/// What is asked, and whether that switches anything.
type Words = (&'static [&'static str], Effect);

/// Whether a question may be asked again by itself. What switches needs a go-ahead of its own for each try (R20).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    Harmless,
    Switches,
}

const STATUS: Words = (&["chassis", "power", "status"], Effect::Harmless);
const GUID: Words = (&["mc", "guid"], Effect::Harmless);
const OFF: Words = (&["chassis", "power", "off"], Effect::Switches);
const ON: Words = (&["chassis", "power", "on"], Effect::Switches);

/// Seconds for the answer to one packet; a session and its question are eleven. Our caller repeats, and by default a dead
/// controller costs 20 s.
const PACKET: &str = "1";
/// The same for a controller that has begun to answer, and too late: one that takes 1.5 s for each needs 17 s for a question.
const PACKET_SLOW: &str = "3";

impl Ipmi {
    /// A controller with these settings; nothing is read or sent before the first call.
    #[must_use]
    pub fn new(settings: IpmiDevice) -> Self {
        let (program, newest_off) = ("ipmitool".to_owned(), NewestOff::default());
        Self { settings, program, is_slow: AtomicBool::new(false), newest_off }
    }

    async fn within<T>(&self, deadline: Duration, words: Words, parse: fn(&str) -> Option<T>) -> Answer<T> {
        match tokio::time::timeout(deadline, self.ask(words, parse)).await {
            Ok(answer) => answer,
            Err(_) => Answer::unknown(format!("no answer within {deadline:?}")),
        }
    }

    async fn ask<T>(&self, (words, effect): Words, parse: fn(&str) -> Option<T>) -> Answer<T> {
        let password = match password::read(&self.settings.password_file).await {
            Ok(password) => password,
            Err(error) => return not_asked(&error),
        };
        let known_slow = self.is_slow.load(Ordering::Relaxed);
        let began = Instant::now();
        let mut ended = match self.tool(&password, words, if known_slow { PACKET_SLOW } else { PACKET }).await {
            Ok(ended) => ended,
            Err(error) => return not_run("ipmitool", &error),
        };
        let took = began.elapsed();
        if !known_slow && effect == Effect::Harmless && took >= QUICK && is_too_late(&ended) {
            ended = match self.tool(&password, words, PACKET_SLOW).await {
                Ok(ended) => ended,
                Err(error) => return not_run("ipmitool", &error),
            };
            self.is_slow.store(ended.code == Some(0), Ordering::Relaxed);
        }
        if ended.code == Some(0) {
            let unread = || Answer::unknown(format!("cannot read what ipmitool says: {}", clean(&ended.stdout)));
            return parse(&ended.stdout).map_or_else(unread, Answer::Confirmed);
        }
        if ended.stderr.contains(NO_SESSION) {
            if effect == Effect::Switches {
                self.newest_off.sent_nothing();
            }
            return self.why_no_session(&password, took).await;
        }
        of_failure(&ended)
    }

    async fn tool(&self, password: &str, words: &[&str], packet: &str) -> std::io::Result<Ended> {
        let settings = &self.settings;
        let (port, suite) = (settings.port.to_string(), settings.suite.to_string());
        let session: &[&str] = match settings.interface {
            IpmiInterface::Lanplus => &["-I", "lanplus", "-C", &suite],
            IpmiInterface::Lan => &["-I", "lan"],
        };
        let privilege = match settings.privilege {
            IpmiPrivilege::Administrator => "ADMINISTRATOR",
            IpmiPrivilege::Operator => "OPERATOR",
        };
        let whom = ["-H", &settings.address, "-p", &port, "-U", &settings.user, "-E", "-L", privilege];
        let tries = ["-N", packet, "-R", "1"];
        let all = session.iter().chain(&whom).chain(&tries).chain(words);
        let arguments: Vec<_> = all.map(|word| (*word).to_owned()).collect();
        run(&self.program, &arguments, &[("IPMI_PASSWORD", password)]).await
    }

    /// A wrong password and a dead controller look the same unless asked verbosely; the first is seen at once, so only a quick
    /// failure is worth a second look. It asks for the status whatever was asked before, because that is harmless.
    async fn why_no_session<T>(&self, password: &str, took: Duration) -> Answer<T> {
        if took >= QUICK {
            return Answer::unknown(
                "the controller does not answer: dead, unreachable, or it ignores this user or cipher suite",
            );
        }
        match self.tool(password, &["-v", "chassis", "power", "status"], PACKET).await {
            Ok(ended) => of_session(&format!("{}{}", ended.stdout, ended.stderr)),
            Err(error) => not_run("ipmitool", &error),
        }
    }
}

/// Failures faster than this are answers: one try of ipmitool's waits 1 s.
const QUICK: Duration = Duration::from_millis(700);

/// What `ipmitool` says when no session came about, whatever the reason. Then no command was sent.
const NO_SESSION: &str = "Unable to establish";

/// What it says when a controller has begun to answer and then did not in time. One that is dead says nothing at all.
const TOO_LATE: &str = "no response from RAKP";

/// Whether a controller was there, and its answer came too late.
fn is_too_late(ended: &Ended) -> bool {
    ended.code != Some(0) && (ended.stderr.contains(TOO_LATE) || !ended.stderr.contains(NO_SESSION))
}

#[async_trait]
impl PowerDevice for Ipmi {
    async fn status(&self, deadline: Duration) -> Answer<Power> {
        self.within(deadline, STATUS, parse_power).await
    }

    async fn off(&self, deadline: Duration) -> Answer<()> {
        let off = async {
            self.newest_off.sends();
            self.within(deadline, OFF, parse_off).await
        };
        self.newest_off.watch(off).await
    }

    async fn on(&self, deadline: Duration) -> Answer<()> {
        self.within(deadline, ON, parse_on).await
    }

    /// One that is dead takes 2 s by itself; one that is slow has a good part of its level.
    fn patience(&self) -> Duration {
        most_of(self.settings.timeout)
    }

    fn goes_on_for(&self) -> Duration {
        self.newest_off.goes_on_for()
    }

    fn describe(&self) -> String {
        let IpmiDevice { address, port, user, .. } = &self.settings;
        format!("ipmi {user}@{address}:{port}")
    }

    async fn machine_id(&self, deadline: Duration) -> Answer<String> {
        self.within(deadline, GUID, parse_guid).await
    }
}

fn parse_power(output: &str) -> Option<Power> {
    match output.trim_end() {
        "Chassis Power is on" => Some(Power::On),
        "Chassis Power is off" => Some(Power::Off),
        _ => None,
    }
}

fn parse_off(output: &str) -> Option<()> {
    (output.trim_end() == "Chassis Power Control: Down/Off").then_some(())
}

fn parse_on(output: &str) -> Option<()> {
    (output.trim_end() == "Chassis Power Control: Up/On").then_some(())
}

fn parse_guid(output: &str) -> Option<String> {
    let line = output.lines().find(|line| line.starts_with("System GUID"))?;
    normalize(line.split_once(':')?.1)
}

/// Completion codes after which the command may still have been carried out, or which pass by themselves: a controller that is
/// starting, as all are when the power comes back, is not one that refuses.
const UNSURE: [&str; 10] = [
    "unspecified",
    "timeout",
    "could not be provided",
    "busy",
    "unknown",
    "duplicated",
    "in update mode",
    "initialization in progress",
    "out of space",
    "destination unavailable",
];

fn of_failure<T>(ended: &Ended) -> Answer<T> {
    let said = clean(ended.stderr.trim());
    let lower = said.to_lowercase();
    let completion = lower.split_once("failed:").map(|(_, code)| code);
    match completion {
        Some(code) if !UNSURE.iter().any(|unsure| code.contains(unsure)) => Answer::refused(said),
        _ => Answer::unknown(if said.is_empty() { format!("ipmitool ended with {:?}", ended.code) } else { said }),
    }
}

fn of_session<T>(said: &str) -> Answer<T> {
    let has = |phrase: &str| said.contains(phrase);
    if has("RAKP 2 HMAC is invalid") {
        Answer::denied("the controller answers, but not with this password")
    } else if has("unauthorized name") || has("Invalid user name") {
        Answer::denied("the controller does not know this user")
    } else if has("no matching cipher suite") || has("no cipher suite match") {
        Answer::refused("the controller refuses this cipher suite: older ones want 3, newer ones 17")
    } else if ["unauthorized role", "invalid role", "Privilege Level", "privilege level"].into_iter().any(has) {
        Answer::refused("the controller does not grant this user that privilege")
    } else if has("Get Auth Capabilities error") {
        Answer::unknown("the controller does not answer")
    } else {
        Answer::unknown(format!(
            "no session with the controller (dead, wrong user, password or suite): {}",
            clean(said.trim())
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;
    use crate::program_folder::ProgramFolder;

    /// What `ipmitool` says against a controller that takes 1.2 s for each packet, as seen with `ipmi_sim` behind a slow line.
    const SLOW: &str = r#"case "$*" in
*"-N 1 "*) sleep 1; echo "> Error: no response from RAKP 1 message" >&2; echo "Error: Unable to establish IPMI v2 / RMCP+ session" >&2; exit 1;;
*status) echo "Chassis Power is on";;
*off) echo "Chassis Power Control: Down/Off";;
esac
"#;

    /// The same against nobody.
    const DEAD: &str = r#"sleep 1; echo "Error: Unable to establish IPMI v2 / RMCP+ session" >&2; exit 1
"#;

    /// A controller that is asked by a program of ours, which writes down how it was called.
    fn scripted(folder: &ProgramFolder, script: &str) -> Ipmi {
        folder.program("ipmitool", &format!("#!/bin/sh\necho \"$*\" >> {}/log\n{script}", folder.dir().display()));
        folder.write("password", "secret\n");
        let (program, password) = (folder.path("ipmitool"), folder.path("password"));
        fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).unwrap();
        let device = Ipmi::new(crate::simulator::settings(623, password));
        Ipmi { program: program.display().to_string(), ..device }
    }

    /// The time for each packet and the last word of every call.
    fn calls(folder: &ProgramFolder) -> Vec<(String, String)> {
        let log = folder.read("log");
        let call = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            let packet = words.iter().position(|word| *word == "-N").map(|at| words[at + 1]);
            (packet.unwrap().to_owned(), words.last().unwrap().to_string())
        };
        log.lines().map(call).collect()
    }

    fn called(packet: &str, word: &str) -> (String, String) {
        (packet.to_owned(), word.to_owned())
    }

    #[tokio::test]
    async fn a_controller_that_answers_too_late_is_given_longer_and_an_off_is_sent_once() {
        let folder = ProgramFolder::new();
        let device = scripted(&folder, SLOW);
        let deadline = Duration::from_secs(20);
        assert!(matches!(device.off(deadline).await, Answer::Unknown { .. }), "without a second go-ahead");
        assert_eq!(calls(&folder), [called("1", "off")]);
        assert_eq!(device.status(deadline).await, Answer::Confirmed(Power::On));
        assert_eq!(device.off(deadline).await, Answer::Confirmed(()));
        assert_eq!(
            calls(&folder)[1..],
            [called("1", "status"), called("3", "status"), called("3", "off")],
            "what is known to be slow is not asked in haste again"
        );
    }

    #[tokio::test]
    async fn nobody_waits_longer_for_a_controller_that_is_dead() {
        let folder = ProgramFolder::new();
        let device = scripted(&folder, DEAD);
        assert!(matches!(device.status(Duration::from_secs(20)).await, Answer::Unknown { .. }));
        assert_eq!(calls(&folder), [called("1", "status")]);
    }

    #[test]
    fn only_the_exact_words_are_a_power_state() {
        assert_eq!(parse_power("Chassis Power is off\n"), Some(Power::Off));
        for odd in
            ["", "Chassis Power is offline", "chassis power is off", "Chassis Power is on\nChassis Power is off", "off"]
        {
            assert_eq!(parse_power(odd), None, "{odd:?}");
        }
    }

    #[test]
    fn a_guid_is_found_among_the_other_lines() {
        let output =
            "System GUID   : EFCDAB89-6745-23a1-efcd-ab89674523a1\nGUID Encoding : IPMI\nGUID Version  : DCE\n";
        assert_eq!(parse_guid(output).unwrap(), "efcdab89-6745-23a1-efcd-ab89674523a1");
        assert_eq!(parse_guid("System GUID  : 00000000-0000-0000-0000-000000000000\n"), None);
    }

    #[test]
    fn a_wrong_user_or_password_is_told_from_other_reasons_for_which_there_is_no_session() {
        for (said, refused) in [
            ("> RAKP 2 HMAC is invalid", Some(true)),
            ("RAKP 2 message indicates an error : unauthorized name", Some(true)),
            ("RAKP 2 message indicates an error : unauthorized role or privilege level requested", Some(false)),
            // By IPMI 1.5 (`interface: lan`).
            ("Invalid user name\nError: Unable to establish LAN session", Some(true)),
            ("Activate Session error:\tRequested privilege level exceeds limit", Some(false)),
            ("Activate Session error:\tInsufficient privilege level", Some(false)),
            ("Activate Session error:\tNo session slot available", None),
            ("Error in open session response message : no matching cipher suite", Some(false)),
            ("Get Auth Capabilities error", None),
            ("> Error: no response from RAKP 1 message", None),
        ] {
            let answer: Answer<()> = of_session(said);
            let denied = if let Answer::Refused { denied, .. } = &answer { Some(*denied) } else { None };
            assert_eq!(denied, refused, "{said}: {answer:?}");
        }
    }

    /// The words are those of ipmitool 1.8.19.
    #[test]
    fn what_passes_or_may_have_been_done_is_not_taken_for_a_refusal() {
        for (code, refused) in [
            ("Unspecified error", false),
            ("Node busy", false),
            ("Timeout", false),
            ("Out of space", false),
            ("Command response could not be provided", false),
            ("Cannot execute duplicated request", false),
            ("SDR Repository in update mode", false),
            ("Device firmeware in update mode", false),
            ("BMC initialization in progress", false),
            ("Destination unavailable", false),
            ("Insufficient privilege level", true),
            ("Command not supported in present state", true),
            ("Invalid command", true),
        ] {
            let stderr = format!("Set Chassis Power Control to Down/Off failed: {code}\n");
            let answer: Answer<()> = of_failure(&Ended { code: Some(1), stdout: String::new(), stderr });
            assert_eq!(matches!(answer, Answer::Refused { .. }), refused, "{code}: {answer:?}");
        }
    }
}
