//! What the supervisor and the guard say to each other: one JSON line asks, one JSON line answers.
//!
//! The two may be of different versions, because the guard outlives upgrades of the supervisor: a request that the
//! guard does not know is refused and changes nothing, and the supervisor ignores what it does not know in answers.
//! Moments are those of the machine that both run on (R1).

use std::{net::SocketAddr, path::PathBuf};

use holdfast_policies::{
    armed::Armed,
    names::{GuestName, Incarnation},
    time::Moment,
};
use serde::{Deserialize, Serialize};

/// Longest request, in bytes.
pub const REQUEST_BYTES_MAX: usize = 64 * 1024;
/// Longest answer, in bytes: a status with [`GUESTS_MAX`] guests is under half of it.
pub const REPLY_BYTES_MAX: u64 = 1024 * 1024;
/// Most registered cgroups: more guests than a host runs.
pub const GUESTS_MAX: usize = 1024;
/// Longest cgroup path, in bytes.
pub const CGROUP_BYTES_MAX: usize = 256;
/// Most beacon addresses: seven voters, and those of the membership before.
pub const VOTERS_MAX: usize = 16;

/// A question or an instruction. Each may be repeated without harm (S7). Those without keys have braces: serde checks for
/// unknown keys only there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// The lease lasts until then. Refused when that is earlier than what was granted before.
    Grant {
        /// When it ends.
        deadline: Moment,
    },
    /// There is no lease.
    Revoke {},
    /// A guest is about to run in this cgroup.
    Register {
        /// Which.
        guest: GuestName,
        /// Absolute path of its cgroup.
        cgroup: PathBuf,
    },
    /// A guest runs no more; all its cgroups are forgotten.
    Unregister {
        /// Which.
        guest: GuestName,
    },
    /// Who gets the beacon from here on, in place of those before.
    Voters {
        /// Their addresses.
        addresses: Vec<SocketAddr>,
    },
    /// Whether the guests are stopped when the lease runs out (R14), as committed policies have it. Only a committed end of
    /// it may be told here: with it the watchdog is disarmed (R15).
    StopMode {
        /// Whether they are.
        stops: bool,
    },
    /// Hand everything over to whoever asks, a guard that is starting (R15).
    HandOver {},
    /// How is it?
    Query {},
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// It is so.
    Done,
    /// It is not, and nothing was changed.
    Refused {
        /// Why.
        reason: String,
    },
    /// How it is.
    Status(Box<Status>),
    /// Lock, socket and watchdog come with this answer.
    HandOver,
}

/// How it is with the guard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The host's boot.
    pub incarnation: Incarnation,
    /// The guard's process id.
    pub pid: u32,
    /// When the guard started; when this changes, everything it knew is to be told again.
    pub started: Moment,
    /// When the lease ends or ended; none: none was granted.
    pub deadline: Option<Moment>,
    /// The registered guests.
    pub guests: Vec<Guest>,
    /// Who gets the beacon.
    pub voters: Vec<SocketAddr>,
    /// Requests refused since the start.
    pub refused: u64,
    /// What is armed, and outside stop mode what would be.
    #[serde(default)]
    pub armed: Option<Armed>,
    /// Why no watchdog is armed, although stop mode wants one.
    #[serde(default)]
    pub unarmed: Option<String>,
    /// Guests that were killed because the lease had run out, until they are registered or unregistered again.
    #[serde(default)]
    pub stopped: Vec<Stopped>,
    /// What makes it wake in time; none: it is not in stop mode, or is no process of its own.
    #[serde(default)]
    pub hardened: Option<Hardened>,
}

/// What makes the guard wake in time on a machine that is short of memory and processors. Nothing relies on it: the watchdog
/// is there for a guard that comes too late.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Hardened {
    /// Why its memory is not locked; none: it is.
    pub memory: Option<String>,
    /// Why it has no real-time priority; none: it has.
    pub priority: Option<String>,
}

/// A guest that was killed because the lease had run out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// Which.
    pub guest: GuestName,
    /// When its cgroup was empty.
    pub at: Moment,
    /// When the lease had run out; none: it was taken back.
    pub lease_ended: Option<Moment>,
}

/// A guest and a cgroup of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Guest {
    /// Its name.
    pub guest: GuestName,
    /// Absolute path of the cgroup.
    pub cgroup: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the version before there were feature levels spoke: a guard and a supervisor of two versions understand each other. A guard
    /// refuses keys that it does not know, so requests are the same to the letter.
    #[test]
    fn an_older_guard_and_an_older_supervisor_are_understood() {
        for text in [
            r#"{"request":"grant","deadline":7}"#,
            r#"{"request":"revoke"}"#,
            r#"{"request":"register","guest":"web-1","cgroup":"/c/web-1"}"#,
            r#"{"request":"unregister","guest":"web-1"}"#,
            r#"{"request":"voters","addresses":["10.0.0.1:7400"]}"#,
            r#"{"request":"stop_mode","stops":true}"#,
            r#"{"request":"hand_over"}"#,
            r#"{"request":"query"}"#,
        ] {
            let request: Request = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&request).unwrap(), text);
        }
        for text in [
            r#"{"reply":"done"}"#,
            r#"{"reply":"refused","reason":"no"}"#,
            r#"{"reply":"hand_over"}"#,
            concat!(
                r#"{"reply":"status","incarnation":"boot-1","pid":7,"started":1,"deadline":9,"#,
                r#""guests":[{"guest":"web-1","cgroup":"/c/web-1"}],"voters":["10.0.0.1:7400"],"refused":0,"#,
                r#""armed":{"stops":true,"guard_ms":1000,"watchdog":{"identity":"wd","timeout_ms":10000,"is_virtual":false}},"#,
                r#""unarmed":null,"stopped":[{"guest":"db-1","at":8,"lease_ended":7}],"#,
                r#""hardened":{"memory":null,"priority":"no"}}"#
            ),
        ] {
            let reply: Reply = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&reply).unwrap(), text);
        }
    }

    #[test]
    fn an_unknown_key_is_refused_also_in_a_request_that_has_no_keys_of_its_own() {
        for (text, accepted) in [
            (r#"{"request":"revoke"}"#, true),
            (r#"{"request":"query"}"#, true),
            (r#"{"request":"revoke","more":1}"#, false),
            (r#"{"request":"query","more":1}"#, false),
        ] {
            assert_eq!(serde_json::from_str::<Request>(text).is_ok(), accepted, "{text}");
        }
        assert_eq!(serde_json::to_string(&Request::Revoke {}).unwrap(), r#"{"request":"revoke"}"#);
    }
}
