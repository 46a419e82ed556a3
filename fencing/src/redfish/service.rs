//! Requests to a Redfish service: who asks, what is taken for an answer, and what a refusal says.

use std::time::Duration;

use holdfast_policies::{
    model::{RedfishAuth, RedfishDevice},
    observe::clean,
};
use reqwest::{Client, RequestBuilder, Response, StatusCode, header};
use serde_json::{Value, json};

use crate::{
    causes::{innermost, passes, with_causes},
    password, tls,
};

/// Largest answer that is read, in bytes: descriptions of systems have some 50 KB.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Longest time for one request. Slow controllers take three seconds for each; into one that is lost, all the time of the level would go.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);
/// How long the end of a session may take, in the background.
const LOGOUT_LIMIT: Duration = Duration::from_secs(5);
/// Where every service begins. Whoever asks may read it.
pub(super) const ROOT: &str = "/redfish/v1/";
/// Where sessions are made when the service does not say it.
const SESSIONS: &str = "/redfish/v1/SessionService/Sessions";
const TOKEN: &str = "X-Auth-Token";

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It will not be done.
    Refused(String),
    /// It will not be done for this user with this password.
    Denied(String),
    /// Nobody knows whether it was done.
    Unknown(String),
}

/// A service that believes who we are.
#[derive(Debug)]
pub(super) struct Service {
    client: Client,
    /// `https://address:port`.
    base: String,
    who: Who,
}

enum Who {
    Basic { user: String, password: String },
    Session { token: String, path: Option<String> },
}

impl std::fmt::Debug for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Basic { .. } => "Basic",
            Self::Session { .. } => "Session",
        })
    }
}

impl Service {
    /// Reads the password, and logs in where a session is wanted.
    pub(super) async fn open(settings: &RedfishDevice) -> Result<Self, Trouble> {
        let password = password::read(&settings.password_file).await.map_err(|error| not_asked(&error))?;
        let client = tls::client(&settings.trust).await.map_err(|error| not_asked(&error))?;
        let base = base(&settings.address, settings.port);
        let user = settings.user.clone();
        match settings.auth {
            RedfishAuth::Basic => Ok(Self { client, base, who: Who::Basic { user, password } }),
            RedfishAuth::Session => {
                let body = json!({ "UserName": user, "Password": password });
                let sessions = sessions(&client, &base).await?;
                let log_in = |url: String| client.post(url).json(&body);
                let answer = send_to(&base, &sessions, log_in).await?.success("log in")?;
                let header = |name: &str| answer.headers.get(name)?.to_str().ok().map(str::to_owned);
                let token = header(TOKEN)
                    .ok_or_else(|| Trouble::Refused("the service logs in without giving a token".to_owned()))?;
                let path = made(&answer.headers).or_else(|| session_in(answer.body.as_ref()?, &base, &sessions));
                Ok(Self { client, base, who: Who::Session { token, path } })
            }
        }
    }

    /// Reads a resource.
    pub(super) async fn get(&self, path: &str) -> Result<Value, Trouble> {
        let answer = self.ask(path, |url| self.client.get(url)).await?;
        answer.body.ok_or_else(|| Trouble::Unknown(format!("{} is no JSON", clean(path))))
    }

    /// Carries out an action. That the service takes it does not mean that anything happens. Where it has made a task of
    /// it: the path of that.
    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Option<String>, Trouble> {
        let answer = self.ask(path, |url| self.client.post(url).json(body)).await?;
        if let Some(task) = &answer.body {
            goes_on(task)?;
        }
        Ok(made(&answer.headers).filter(|_| answer.status == StatusCode::ACCEPTED))
    }

    async fn ask(&self, path: &str, request: impl Fn(String) -> RequestBuilder) -> Result<Answered, Trouble> {
        let own = self.own(path)?;
        let answered = send_to(&self.base, &own, |url| self.as_us(request(url))).await?;
        if answered.status != StatusCode::UNAUTHORIZED {
            return answered.success(path);
        }
        let starting = match &self.who {
            // The service took the password for this session. One that has started anew knows of no sessions.
            Who::Session { .. } => return Err(Trouble::Unknown("the service has ended our session".to_owned())),
            // A controller that starts may know nobody yet.
            Who::Basic { .. } => !is_up(&self.client, &self.base).await,
        };
        if starting {
            return Err(Trouble::Unknown("the service is starting: it knows nobody, and shows no root".to_owned()));
        }
        answered.success(path)
    }

    fn as_us(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.who {
            Who::Basic { user, password } => request.basic_auth(user, Some(password)),
            Who::Session { token, .. } => request.header(TOKEN, token),
        }
    }

    /// Links lead to this service and nowhere else: whoever they led to would be told our password.
    fn own(&self, path: &str) -> Result<String, Trouble> {
        local(&self.base, path)
            .ok_or_else(|| Trouble::Refused(format!("the service points to {}, which is not its own", clean(path))))
    }
}

impl Drop for Service {
    /// Services have room for few sessions, so that one left behind costs somebody a login.
    fn drop(&mut self) {
        let Who::Session { token, path: Some(path) } = &self.who else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (client, base, token, path) = (self.client.clone(), self.base.clone(), token.clone(), path.clone());
        runtime.spawn(async move {
            let log_out = |url: String| client.delete(url).header(TOKEN, &token);
            let ended = tokio::time::timeout(LOGOUT_LIMIT, send_to(&base, &path, log_out)).await;
            if !matches!(&ended, Ok(Ok(answered)) if answered.status.is_success()) {
                tracing::debug!("a redfish session was left to end by itself");
            }
        });
    }
}

/// Why the service could not even be asked.
fn not_asked(error: &(dyn std::error::Error + 'static)) -> Trouble {
    let said = with_causes(error);
    if passes(error) { Trouble::Unknown(said) } else { Trouble::Refused(said) }
}

/// Where sessions are made. A service that does not let strangers read where, or does not say it, has the usual place.
async fn sessions(client: &Client, base: &str) -> Result<String, Trouble> {
    let root = match root(client, base).await.and_then(|root| root.success(ROOT)) {
        Ok(root) => root.body,
        Err(Trouble::Refused(_) | Trouble::Denied(_)) => None,
        Err(unknown @ Trouble::Unknown(_)) => return Err(unknown),
    };
    let said = root.as_ref().and_then(|root| root.get("Links")?.get("Sessions")?.get("@odata.id")?.as_str());
    Ok(said.and_then(|link| local(base, link)).unwrap_or_else(|| SESSIONS.to_owned()))
}

/// Whether a task goes on, if this is one.
///
/// # Errors
/// [`Trouble::Refused`] when it has failed.
pub(super) fn goes_on(task: &Value) -> Result<bool, Trouble> {
    match task.get("TaskState").and_then(Value::as_str) {
        Some(over @ ("Exception" | "Killed" | "Cancelled")) => {
            let said = task.get("Messages").and_then(|messages| messages.get(0)?.get("Message")?.as_str());
            let said = said.map(|said| format!(": {}", clean(said))).unwrap_or_default();
            Err(Trouble::Refused(format!("the service made a task of it that ended as {over}{said}")))
        }
        Some("Completed") | None => Ok(false),
        Some(_) => Ok(true),
    }
}

fn base(address: &str, port: u16) -> String {
    if address.contains(':') { format!("https://[{address}]:{port}") } else { format!("https://{address}:{port}") }
}

/// The path of a link to the service itself.
fn local(base: &str, link: &str) -> Option<String> {
    let path = link.strip_prefix(base).unwrap_or(link);
    let fine = path.starts_with('/') && !path.starts_with("//") && !path.contains(['\\', '#', ' ']);
    fine.then(|| path.to_owned())
}

/// The path of what a service has just made, or sends us to. It calls itself what it takes for its name, mostly without the port that
/// it was asked at; who is asked for that path is this service all the same.
fn made(headers: &header::HeaderMap) -> Option<String> {
    let location = headers.get(header::LOCATION)?.to_str().ok()?;
    let path = match location.split_once("://") {
        Some((_, place)) => place.get(place.find('/')?..)?,
        None => location,
    };
    local("", path)
}

/// The path of a session of which a service tells in the body alone. As it is to be deleted, it has to be one.
fn session_in(body: &Value, base: &str, sessions: &str) -> Option<String> {
    let path = local(base, body.get("@odata.id")?.as_str()?)?;
    let id = path.strip_prefix(sessions.trim_end_matches('/'))?.strip_prefix('/')?;
    (!id.is_empty()).then(|| path.clone())
}

/// What came back.
struct Answered {
    status: StatusCode,
    headers: header::HeaderMap,
    body: Option<Value>,
}

impl Answered {
    fn success(self, what: &str) -> Result<Self, Trouble> {
        if self.status.is_success() { Ok(self) } else { Err(of_status(what, self.status, self.body.as_ref())) }
    }

    /// The same path with a slash at its end, or without, if that is where the service sends us.
    fn other_end(&self, path: &str) -> Option<String> {
        let redirects = matches!(self.status.as_u16(), 301 | 302 | 307 | 308);
        let meant = made(&self.headers).filter(|_| redirects)?;
        let is_same = meant != path && meant.trim_end_matches('/') == path.trim_end_matches('/');
        is_same.then_some(meant)
    }
}

/// Sends a request to a path of the service; once more where that wants the same path with a slash at its end, or without. What is
/// redirected was not carried out. It is sent nowhere else.
async fn send_to(base: &str, path: &str, request: impl Fn(String) -> RequestBuilder) -> Result<Answered, Trouble> {
    let answered = send(request(format!("{base}{path}"))).await?;
    match answered.other_end(path) {
        Some(meant) => send(request(format!("{base}{meant}"))).await,
        None => Ok(answered),
    }
}

/// Sends a request and reads what comes back, for as long as one may take.
async fn send(request: RequestBuilder) -> Result<Answered, Trouble> {
    let late = |_| Trouble::Unknown(format!("no answer to a request within {REQUEST_LIMIT:?}"));
    tokio::time::timeout(REQUEST_LIMIT, exchange(request)).await.map_err(late)?
}

async fn exchange(request: RequestBuilder) -> Result<Answered, Trouble> {
    let request = request.header(header::ACCEPT, "application/json").header("OData-Version", "4.0");
    let mut response = request.send().await.map_err(|error| of_error(&error))?;
    let status = response.status();
    let headers = std::mem::take(response.headers_mut());
    let bytes = body(response).await?;
    Ok(Answered { status, headers, body: serde_json::from_slice(&bytes).ok() })
}

/// Whether the service shows its root, or asks there too who we are.
async fn is_up(client: &Client, base: &str) -> bool {
    let root = root(client, base).await;
    root.is_ok_and(|root| root.status.is_success() || matches!(root.status.as_u16(), 401 | 403))
}

/// Asks for the root as nobody: no password is sent for it.
async fn root(client: &Client, base: &str) -> Result<Answered, Trouble> {
    send_to(base, ROOT, |url| client.get(url)).await
}

async fn body(mut response: Response) -> Result<Vec<u8>, Trouble> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| of_error(&error))? {
        if bytes.len() + chunk.len() > BODY_BYTES_MAX {
            return Err(Trouble::Unknown(format!("the answer is longer than {BODY_BYTES_MAX} bytes")));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn of_error(error: &reqwest::Error) -> Trouble {
    let said = clean(&innermost(error));
    if tls::is_distrust(error) { Trouble::Refused(said) } else { Trouble::Unknown(said) }
}

fn of_status(what: &str, status: StatusCode, body: Option<&Value>) -> Trouble {
    let said = body.and_then(message).map(|said| format!(": {}", clean(said))).unwrap_or_default();
    let code = status.as_u16();
    let what = clean(what);
    match code {
        401 => Trouble::Denied(format!("the service does not take this user and password{said}")),
        403 => Trouble::Denied(format!("the user may not do this ({what}){said}")),
        // What is busy, starting or in trouble may do it later, or may have done it. A service that starts lacks resources that
        // it will have in a minute.
        404 | 408 | 409 | 412 | 423 | 425 | 429 | 500 | 502..=599 => {
            Trouble::Unknown(format!("the service answers {code} to {what}{said}"))
        }
        300..=399 => Trouble::Refused(format!("the service sends us elsewhere ({code} to {what})")),
        _ => Trouble::Refused(format!("the service answers {code} to {what}{said}")),
    }
}

/// The first message of an error, as services nest it.
fn message(body: &Value) -> Option<&str> {
    let error = body.get("error")?;
    let extended = error.get("@Message.ExtendedInfo").and_then(|info| info.get(0)?.get("Message")?.as_str());
    extended.or_else(|| error.get("message")?.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_nowhere_else() {
        let base = base("fd00::1", 443);
        assert_eq!(base, "https://[fd00::1]:443");
        let fine = |link: &str| local(&base, link);
        assert_eq!(fine("/redfish/v1/Systems/1").unwrap(), "/redfish/v1/Systems/1");
        assert_eq!(fine("https://[fd00::1]:443/redfish/v1").unwrap(), "/redfish/v1");
        for odd in
            ["//evil/x", "https://evil/", "https://[fd00::1]:443.evil/", "@evil/", "", "redfish", "/a b", "/\\evil"]
        {
            assert_eq!(fine(odd), None, "{odd:?}");
        }
    }

    #[test]
    fn what_a_service_has_made_is_asked_for_where_the_service_is() {
        let at = |location: &str| {
            let mut headers = header::HeaderMap::new();
            headers.insert(header::LOCATION, location.parse().unwrap());
            made(&headers)
        };
        for location in ["/redfish/v1/x/1", "https://bmc-7/redfish/v1/x/1", "https://[fd00::1]:8443/redfish/v1/x/1"] {
            assert_eq!(at(location).as_deref(), Some("/redfish/v1/x/1"), "{location}");
        }
        for odd in ["https://bmc-7", "https://bmc-7//evil/x", "//evil/x", "x/1", ""] {
            assert_eq!(at(odd), None, "{odd:?}");
        }
        let told = |link: &str| session_in(&json!({ "@odata.id": link }), "https://bmc-7:443", "/redfish/v1/Sessions/");
        assert_eq!(told("/redfish/v1/Sessions/7").as_deref(), Some("/redfish/v1/Sessions/7"));
        for odd in ["/redfish/v1/Sessions", "/redfish/v1/Sessions/", "/redfish/v1/AccountService/Accounts/7", ""] {
            assert_eq!(told(odd), None, "only a session is deleted: {odd:?}");
        }
    }

    #[test]
    fn a_refusal_carries_the_words_of_the_service() {
        let body = json!({ "error": { "@Message.ExtendedInfo": [{ "Message": "no\nprivilege" }], "message": "x" } });
        let trouble = of_status("/x", StatusCode::FORBIDDEN, Some(&body));
        assert_eq!(trouble, Trouble::Denied("the user may not do this (/x): no privilege".to_owned()));
        assert!(matches!(of_status("/x", StatusCode::UNAUTHORIZED, None), Trouble::Denied(_)));
        for starting in [StatusCode::SERVICE_UNAVAILABLE, StatusCode::NOT_FOUND] {
            assert!(matches!(of_status("/x", starting, None), Trouble::Unknown(_)), "{starting}");
        }
        assert!(matches!(of_status("/x", StatusCode::NOT_IMPLEMENTED, None), Trouble::Refused(_)));
    }
}
