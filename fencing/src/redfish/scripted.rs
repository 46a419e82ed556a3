//! A Redfish service for tests, in this process: TLS, one system, and whatever oddities services have been seen with.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use holdfast_policies::{
    model::{RedfishAuth, RedfishDevice},
    time::Span,
};
use serde_json::{Value, json};

use super::{NewestOff, Redfish};
use crate::{
    benches::SETTLED,
    https_server::{Reply, Request, Server},
};

/// `admin:secret`, as basic authentication writes it.
const BASIC: &str = "Basic YWRtaW46c2VjcmV0";
const TOKEN: &str = "token-of-this-session";

/// What is odd about the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Quirk {
    None,
    /// Accepts a reset and does nothing.
    Stuck,
    /// Answers this late.
    Slow(Duration),
    /// Answers everything with this status.
    Answers(u16),
    /// Refuses with 409 to switch off what is off.
    OffWhenOff,
    /// Says what it offers on a page of its own.
    ActionInfo,
    /// Makes a task of a reset, which ends like this.
    Task(&'static str),
    /// Makes a task of a reset, which goes on and then fails.
    TaskFails,
    /// Makes sessions at a place of its own, which it tells everybody.
    OtherSessions,
    /// Tells where a session is by a name of its own, without the port, as those of HPE do.
    NamesItself,
    /// Tells where a session is in the body alone, as those of Huawei do.
    NoLocation,
    /// Offers no `ForceOff`.
    GracefulOnly,
    /// Points to somebody else's address for a reset.
    Elsewhere,
    /// Redirects everything.
    Redirects,
    /// Redirects whatever has no slash at its end to the same with one, as older ones of Supermicro do.
    WantsSlashes,
    /// Redirects whatever has a slash at its end to the same without.
    WantsNoSlashes,
    /// Has two systems.
    TwoSystems,
    /// Sends no end of an answer.
    Endless,
    /// Is starting: it knows nobody, and its root is not there yet.
    Starting,
    /// Is starting: it has found no system yet.
    NoSystem,
}

/// The service; it ends with this value.
pub(crate) struct Scripted {
    server: Server,
    state: Arc<Mutex<State>>,
}

struct State {
    power: String,
    quirk: Quirk,
    offs: u32,
    sessions: i32,
    logins: u32,
    only_sessions: bool,
    task_reads: u32,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Scripted {
    /// Starts one whose system is on. It speaks TLS 1.2 only, as most controllers do.
    pub(crate) async fn start() -> Self {
        let state = State {
            power: "On".to_owned(),
            quirk: Quirk::None,
            offs: 0,
            sessions: 0,
            logins: 0,
            only_sessions: false,
            task_reads: 0,
        };
        let state = Arc::new(Mutex::new(state));
        let answering = Arc::clone(&state);
        let server = Server::start(move |request| lock(&answering).reply(request)).await;
        Self { server, state }
    }

    pub(crate) fn settings(&self) -> RedfishDevice {
        RedfishDevice {
            address: "127.0.0.1".to_owned(),
            port: self.server.port(),
            user: "admin".to_owned(),
            password_file: self.password_file("secret"),
            auth: RedfishAuth::Basic,
            system: None,
            trust: self.server.trust(),
            wiring_verified_by: None,
            timeout: Span::secs(5),
        }
    }

    pub(crate) fn device(&self) -> Redfish {
        Redfish { newest_off: NewestOff::done_within(SETTLED), ..Redfish::new(self.settings()) }
    }

    pub(crate) fn ca_file(&self) -> std::path::PathBuf {
        self.server.ca_file()
    }

    pub(crate) fn password_file(&self, password: &str) -> std::path::PathBuf {
        self.server.secret_file(password)
    }

    pub(crate) fn quirk(&self, quirk: Quirk) {
        lock(&self.state).quirk = quirk;
    }

    pub(crate) fn only_sessions(&self) {
        lock(&self.state).only_sessions = true;
    }

    /// As a controller does that was started anew.
    pub(crate) fn forget_sessions(&self) {
        lock(&self.state).sessions = 0;
    }

    pub(crate) fn set_power(&self, power: &str) {
        power.clone_into(&mut lock(&self.state).power);
    }

    pub(crate) fn power(&self) -> String {
        lock(&self.state).power.clone()
    }

    pub(crate) fn offs(&self) -> u32 {
        lock(&self.state).offs
    }

    /// Sessions that are open, and how often somebody has logged in.
    pub(crate) fn sessions(&self) -> (i32, u32) {
        let state = lock(&self.state);
        (state.sessions, state.logins)
    }
}

/// Status, headers, body.
type Answer = (u16, String, Value);

impl State {
    fn reply(&mut self, request: &Request) -> Reply {
        let (status, headers, body) = self.answer(request);
        let mut reply = Reply { headers, ..Reply::new(status, body) };
        match self.quirk {
            Quirk::Slow(late) => reply.late = late,
            Quirk::Endless => reply.endless = true,
            _ => {}
        }
        reply
    }

    fn answer(&mut self, request: &Request) -> Answer {
        let plain = |status, body| (status, String::new(), body);
        match &self.quirk {
            Quirk::Answers(status) => return plain(*status, json!({ "error": { "message": "scripted" } })),
            Quirk::Starting if request.path == "/redfish/v1/" => return plain(503, Value::Null),
            Quirk::Starting => return plain(401, Value::Null),
            Quirk::Redirects => return (308, "Location: https://127.0.0.1:1/\r\n".to_owned(), Value::Null),
            Quirk::WantsSlashes if !request.path.ends_with('/') => {
                return (308, format!("Location: https://127.0.0.1{}/\r\n", request.path), Value::Null);
            }
            Quirk::WantsNoSlashes if request.path.ends_with('/') => {
                return (308, format!("Location: {}\r\n", request.path.trim_end_matches('/')), Value::Null);
            }
            _ => {}
        }
        let path = match request.path.trim_end_matches('/') {
            "/redfish/v1" => "/redfish/v1/",
            path => path,
        };
        let other = self.quirk == Quirk::OtherSessions;
        let sessions = if other { "/redfish/v1/Sessions" } else { "/redfish/v1/SessionService/Sessions" };
        let root = json!({
            "Systems": { "@odata.id": "/redfish/v1/Systems" },
            "Links": { "Sessions": { "@odata.id": sessions } },
        });
        if other && request.method == "GET" && path == "/redfish/v1/" {
            return plain(200, root);
        }
        if (request.method.as_str(), path) == ("POST", sessions) {
            return self.log_in(&request.json(), sessions);
        }
        let by_session = request.header("x-auth-token") == TOKEN && self.sessions > 0;
        if !by_session && (self.only_sessions || request.header("authorization") != BASIC) {
            return plain(401, json!({ "error": { "message": "who are you" } }));
        }
        match (request.method.as_str(), path) {
            ("GET", "/redfish/v1/") => plain(200, root),
            ("GET", "/redfish/v1/TaskService/Tasks/1") if self.quirk == Quirk::TaskFails => {
                self.task_reads += 1;
                let state = if self.task_reads < 3 { "Running" } else { "Exception" };
                plain(200, json!({ "TaskState": state, "Messages": [{ "Message": "the supply does not obey" }] }))
            }
            ("GET", "/redfish/v1/Systems") => plain(200, self.systems()),
            ("GET", "/redfish/v1/Systems/1") => plain(200, self.system()),
            ("GET", "/redfish/v1/Systems/1/ResetActionInfo") => {
                plain(200, json!({ "Parameters": [{ "Name": "ResetType", "AllowableValues": ["On", "ForceOff"] }] }))
            }
            ("POST", "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset") => self.reset(&request.json()),
            ("DELETE", path) if path == format!("{sessions}/1") => {
                self.sessions -= 1;
                plain(204, Value::Null)
            }
            _ => plain(404, Value::Null),
        }
    }

    fn log_in(&mut self, who: &Value, sessions: &str) -> Answer {
        if *who != json!({ "UserName": "admin", "Password": "secret" }) {
            return (401, String::new(), Value::Null);
        }
        self.sessions += 1;
        self.logins += 1;
        let mut told = json!({ "Id": "1" });
        let location = match self.quirk {
            Quirk::NamesItself => format!("Location: https://bmc-7.example{sessions}/1\r\n"),
            Quirk::NoLocation => {
                told["@odata.id"] = json!(format!("{sessions}/1"));
                String::new()
            }
            _ => format!("Location: {sessions}/1\r\n"),
        };
        (201, format!("X-Auth-Token: {TOKEN}\r\n{location}"), told)
    }

    fn systems(&self) -> Value {
        let mut members = vec![json!({ "@odata.id": "/redfish/v1/Systems/1" })];
        if self.quirk == Quirk::NoSystem {
            members.clear();
        }
        if self.quirk == Quirk::TwoSystems {
            members.push(json!({ "@odata.id": "/redfish/v1/Systems/2" }));
        }
        json!({ "Members": members })
    }

    fn system(&self) -> Value {
        let mut action = json!({
            "target": "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset",
            "ResetType@Redfish.AllowableValues": ["On", "ForceOff", "GracefulShutdown", "PushPowerButton"],
        });
        match self.quirk {
            Quirk::GracefulOnly => action["ResetType@Redfish.AllowableValues"] = json!(["GracefulShutdown"]),
            Quirk::Elsewhere => action["target"] = json!("//127.0.0.1:1/reset"),
            Quirk::ActionInfo => {
                action["@Redfish.ActionInfo"] = json!("/redfish/v1/Systems/1/ResetActionInfo");
                action.as_object_mut().unwrap().remove("ResetType@Redfish.AllowableValues");
            }
            _ => {}
        }
        json!({
            "UUID": "33221100-5544-7766-8899-AABBCCDDEEFF",
            "PowerState": self.power,
            "Actions": { "#ComputerSystem.Reset": action },
        })
    }

    fn reset(&mut self, body: &Value) -> Answer {
        let kind = body["ResetType"].as_str().unwrap_or_default();
        self.offs += u32::from(kind == "ForceOff");
        let off_already = kind == "ForceOff" && self.power == "Off";
        if self.quirk == Quirk::OffWhenOff && off_already {
            return (409, String::new(), json!({ "error": { "message": "is off" } }));
        }
        if self.quirk == Quirk::TaskFails {
            return (202, "Location: /redfish/v1/TaskService/Tasks/1\r\n".to_owned(), json!({ "TaskState": "New" }));
        }
        if let Quirk::Task(ends) = self.quirk {
            if ends == "Running" {
                self.power = "Off".to_owned();
            }
            return (202, "Location: /redfish/v1/TaskService/Tasks/1\r\n".to_owned(), json!({ "TaskState": ends }));
        }
        match (kind, &self.quirk) {
            (_, Quirk::Stuck) => {}
            ("ForceOff", _) => self.power = "Off".to_owned(),
            ("On", _) => self.power = "On".to_owned(),
            _ => return (400, String::new(), json!({ "error": { "message": "unknown reset" } })),
        }
        (204, String::new(), Value::Null)
    }
}
