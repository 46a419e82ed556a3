//! Programs of one's own that ask and switch. How they end counts:
//!
//! | exit code | `status` | `off`, `on` | `machine_id` |
//! | --- | --- | --- | --- |
//! | 0 | on | accepted | the UUID is on its standard output |
//! | 2 | off | unknown | unknown |
//! | 3 | refused | refused | it cannot tell |
//! | any other | unknown | unknown | unknown |
//!
//! With 2 also a shell or an interpreter ends that cannot read or understand its program, and complains. So "off" is believed only of
//! a program that has written nothing to its standard error.

use std::time::Duration;

use async_trait::async_trait;
use holdfast_policies::{model::CommandDevice, observe::clean};

use crate::{
    device::{Answer, Power, PowerDevice, most_of},
    machine_id::normalize,
    newest_off::NewestOff,
    program::{Ended, not_run, run},
};

const DONE: i32 = 0;
const IS_OFF: i32 = 2;
const WILL_NOT: i32 = 3;

/// Programs that switch one host.
#[derive(Debug)]
pub struct Command {
    settings: CommandDevice,
    newest_off: NewestOff,
}

impl Command {
    /// Programs with these arguments; nothing is run before the first call.
    #[must_use]
    pub fn new(settings: CommandDevice) -> Self {
        Self { settings, newest_off: NewestOff::default() }
    }
}

async fn within(words: &[String], deadline: Duration) -> Result<Ended, Answer<i32>> {
    let Some((program, arguments)) = words.split_first() else { return Err(Answer::refused("no program is declared")) };
    match tokio::time::timeout(deadline, run(program, arguments, &[])).await {
        Ok(Ok(ended)) => Ok(ended),
        Ok(Err(error)) => Err(not_run(program, &error)),
        Err(_) => Err(Answer::unknown(format!("{program} had not ended after {deadline:.1?}"))),
    }
}

/// The exit code of a program, if it is one of those expected.
fn judged(ended: &Ended, words: &[String], expected: &[i32]) -> Answer<i32> {
    let program = words.first().map(String::as_str).unwrap_or_default();
    let said = clean(ended.stderr.lines().last().unwrap_or_default().trim());
    match ended.code {
        Some(code) if expected.contains(&code) => Answer::Confirmed(code),
        Some(WILL_NOT) => Answer::refused(format!("{program} refuses: {said}")),
        Some(code) => Answer::unknown(format!("{program} ended with exit code {code}: {said}")),
        None => Answer::unknown(format!("{program} was killed")),
    }
}

fn power(code: i32, ended: &Ended) -> Answer<Power> {
    let complaint = ended.stderr.trim();
    match code {
        IS_OFF if complaint.is_empty() => Answer::Confirmed(Power::Off),
        IS_OFF => Answer::unknown(format!("it ended with exit code {IS_OFF}, and complains: {}", clean(complaint))),
        _ => Answer::Confirmed(Power::On),
    }
}

async fn switch(words: &[String], deadline: Duration) -> Answer<()> {
    match within(words, deadline).await {
        Err(answer) => answer.and_then(|_| Answer::unknown("it did not end")),
        Ok(ended) => judged(&ended, words, &[DONE]).and_then(|_| Answer::Confirmed(())),
    }
}

#[async_trait]
impl PowerDevice for Command {
    async fn status(&self, deadline: Duration) -> Answer<Power> {
        let words = &self.settings.status;
        match within(words, deadline).await {
            Err(answer) => answer.and_then(|_| Answer::unknown("it did not end")),
            Ok(ended) => judged(&ended, words, &[DONE, IS_OFF]).and_then(|code| power(code, &ended)),
        }
    }

    async fn off(&self, deadline: Duration) -> Answer<()> {
        // Whether one that ends badly has sent anything, it does not tell.
        let off = async {
            self.newest_off.sends();
            switch(&self.settings.off, deadline).await
        };
        self.newest_off.watch(off).await
    }

    async fn on(&self, deadline: Duration) -> Answer<()> {
        match &self.settings.on {
            Some(words) => switch(words, deadline).await,
            None => Answer::refused("no program is declared that switches on"),
        }
    }

    /// A program may wait for the power to go.
    fn patience(&self) -> Duration {
        most_of(self.settings.timeout)
    }

    fn goes_on_for(&self) -> Duration {
        self.newest_off.goes_on_for()
    }

    fn describe(&self) -> String {
        format!("command {}", clean(&self.settings.off.join(" ")))
    }

    async fn machine_id(&self, deadline: Duration) -> Answer<String> {
        let Some(words) = &self.settings.machine_id else {
            return Answer::refused("it cannot tell which machine is behind it: no program for that is declared");
        };
        match within(words, deadline).await {
            Err(answer) => answer.and_then(|_| Answer::unknown("it did not end")),
            Ok(ended) => judged(&ended, words, &[DONE]).and_then(|_| {
                normalize(&ended.stdout).map_or_else(|| Answer::unknown("what it prints is no UUID"), Answer::Confirmed)
            }),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use holdfast_policies::time::Span;

    use super::*;
    use crate::{benches::SETTLED, program_folder::ProgramFolder};

    /// Keeps the power in a file, and obeys fault files.
    const SCRIPT: &str = r#"D=$1
[ -e "$D/slow" ] && sleep "$(cat "$D/slow")"
[ -e "$D/fail" ] && { echo "no route" >&2; exit 1; }
[ -e "$D/refuse" ] && { echo "not on sundays" >&2; exit 3; }
case $2 in
status) [ "$(cat "$D/power")" = 1 ] && exit 0; exit 2;;
off) echo off >> "$D/log"; [ -e "$D/stuck" ] || echo 0 > "$D/power";;
on) [ -e "$D/stuck" ] || echo 1 > "$D/power";;
machine_id) echo 33221100-5544-7766-8899-AABBCCDDEEFF;;
esac
exit 0
"#;

    /// Programs in a folder of their own.
    pub(crate) struct Programs {
        folder: ProgramFolder,
    }

    impl Programs {
        pub(crate) fn new() -> Self {
            let programs = Self { folder: ProgramFolder::new() };
            programs.fault("script", SCRIPT);
            programs.set_power(true);
            programs
        }

        pub(crate) fn settings(&self) -> CommandDevice {
            let folder = self.folder.dir().display().to_string();
            let words = |what: &str| vec!["sh".to_owned(), format!("{folder}/script"), folder.clone(), what.to_owned()];
            CommandDevice {
                status: words("status"),
                off: words("off"),
                on: Some(words("on")),
                machine_id: Some(words("machine_id")),
                wiring_verified_by: None,
                timeout: Span::secs(4),
            }
        }

        pub(crate) fn device(&self) -> Command {
            Command { newest_off: NewestOff::done_within(SETTLED), ..Command::new(self.settings()) }
        }

        pub(crate) fn fault(&self, name: &str, content: &str) {
            self.folder.write(name, content);
        }

        pub(crate) fn set_power(&self, on: bool) {
            self.fault("power", if on { "1\n" } else { "0\n" });
        }

        pub(crate) fn is_on(&self) -> bool {
            self.folder.read("power").trim() == "1"
        }

        pub(crate) fn offs(&self) -> u32 {
            self.folder.offs()
        }
    }

    /// Shells end with 2 for all of these, and Python where it cannot open its program.
    #[tokio::test]
    async fn a_program_that_cannot_be_read_or_understood_does_not_say_off() {
        const CALL: Duration = Duration::from_secs(10);
        let programs = Programs::new();
        let says = |words: &[&str]| {
            let status = words.iter().map(|word| (*word).to_owned()).collect();
            Command::new(CommandDevice { status, ..programs.settings() })
        };
        for broken in [&["sh", "/nonexistent/program"][..], &["sh", "-c", "if"], &["sh", "-c", "echo no >&2; exit 2"]] {
            let answer = says(broken).status(CALL).await;
            assert!(matches!(answer, Answer::Unknown { .. }), "{broken:?}: {answer:?}");
        }
        assert_eq!(says(&["sh", "-c", "echo off; exit 2"]).status(CALL).await, Answer::Confirmed(Power::Off));
    }

    #[tokio::test]
    async fn exit_codes_are_told_apart() {
        const CALL: Duration = Duration::from_secs(10);
        let programs = Programs::new();
        programs.fault("refuse", "");
        let Answer::Refused { detail, .. } = programs.device().off(CALL).await else { panic!() };
        assert_eq!(detail, "sh refuses: not on sundays");
        let mut settings = programs.settings();
        (settings.on, settings.machine_id) = (None, None);
        settings.status = vec!["/nonexistent/program".to_owned()];
        let device = Command::new(settings);
        assert!(matches!(device.on(CALL).await, Answer::Refused { .. }));
        assert!(matches!(device.machine_id(CALL).await, Answer::Refused { .. }));
        assert!(matches!(device.status(CALL).await, Answer::Refused { .. }));
    }
}
