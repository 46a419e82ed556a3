//! Automation of one's own, asked over HTTPS by signed requests (as Standard Webhooks signs them).
//!
//! `POST URL` with `{"action": "status" | "off" | "on" | "machine_id", "host": HOST}`. The answer to `status` is
//! `{"power": "on" | "off"}`, that to `machine_id` is `{"machine_id": UUID}`; to `off` and `on` any success means
//! "accepted". Whether the host is off is what the next `status` says. 4xx means "it will not be done".

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use base64::{Engine, prelude::BASE64_STANDARD};
use holdfast_policies::{model::WebhookDevice, observe::clean};
use reqwest::{Response, StatusCode, header::CONTENT_TYPE};
use ring::hmac;
use serde_json::{Value, json};

use crate::{
    causes::{innermost, not_asked},
    device::{Answer, Power, PowerDevice, most_of},
    machine_id::normalize,
    newest_off::NewestOff,
    password, tls,
};

/// Largest answer that is read, in bytes.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Shortest key, in bytes, as Standard Webhooks asks for.
const KEY_BYTES_MIN: usize = 24;
/// The action that switches a host off.
const OFF: &str = "off";
/// Keeps the ids of requests of one process apart.
static SENT: AtomicU64 = AtomicU64::new(0);

/// Automation that switches one host.
#[derive(Debug)]
pub struct Webhook {
    settings: WebhookDevice,
    newest_off: NewestOff,
}

impl Webhook {
    /// Automation at this address; nothing is read or sent before the first call.
    #[must_use]
    pub fn new(settings: WebhookDevice) -> Self {
        Self { settings, newest_off: NewestOff::default() }
    }

    async fn within(&self, action: &str, deadline: Duration) -> Answer<Value> {
        match tokio::time::timeout(deadline, self.ask(action)).await {
            Ok(answer) => answer,
            Err(_) => Answer::unknown(format!("no answer within {deadline:.1?}")),
        }
    }

    async fn ask(&self, action: &str) -> Answer<Value> {
        let key = match password::read(&self.settings.key_file).await {
            Ok(text) => key(&text),
            Err(error) => return not_asked(&error),
        };
        let Some(key) = key else {
            let path = self.settings.key_file.display();
            return Answer::refused(format!(
                "{path} holds no key: write `whsec_` and {KEY_BYTES_MIN} bytes or more in base64"
            ));
        };
        let client = match tls::client(&self.settings.trust).await {
            Ok(client) => client,
            Err(error) => return not_asked(&error),
        };
        let body = json!({ "action": action, "host": self.settings.host }).to_string();
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let id = format!("msg_{:x}_{:x}", seconds.as_nanos(), SENT.fetch_add(1, Ordering::Relaxed));
        let signature = sign(&key, &id, seconds.as_secs(), &body);
        let request = client
            .post(&self.settings.url)
            .header("webhook-id", id)
            .header("webhook-timestamp", seconds.as_secs())
            .header("webhook-signature", signature)
            .header(CONTENT_TYPE, "application/json")
            .body(body);
        match request.send().await {
            Ok(response) => read(response).await,
            Err(error) => {
                if action == OFF && error.is_connect() {
                    self.newest_off.sent_nothing();
                }
                of_error(&error)
            }
        }
    }

    async fn switch(&self, action: &str, deadline: Duration) -> Answer<()> {
        self.within(action, deadline).await.and_then(|_| Answer::Confirmed(()))
    }
}

/// The key in a file: base64 after `whsec_`.
fn key(text: &str) -> Option<Vec<u8>> {
    let bytes = BASE64_STANDARD.decode(text.strip_prefix("whsec_").unwrap_or(text)).ok()?;
    (bytes.len() >= KEY_BYTES_MIN).then_some(bytes)
}

fn sign(key: &[u8], id: &str, seconds: u64, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let tag = hmac::sign(&key, format!("{id}.{seconds}.{body}").as_bytes());
    format!("v1,{}", BASE64_STANDARD.encode(tag))
}

async fn read(mut response: Response) -> Answer<Value> {
    let status = response.status();
    let mut bytes = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if bytes.len() + chunk.len() <= BODY_BYTES_MAX => bytes.extend_from_slice(&chunk),
            Ok(Some(_)) => return Answer::unknown(format!("the answer is longer than {BODY_BYTES_MAX} bytes")),
            Ok(None) => break,
            Err(error) => return of_error(&error),
        }
    }
    let said = clean(String::from_utf8_lossy(&bytes).trim());
    match status {
        _ if status.is_success() => Answer::Confirmed(serde_json::from_slice(&bytes).unwrap_or_default()),
        // What is busy may do it later, or may have done it.
        StatusCode::REQUEST_TIMEOUT | StatusCode::CONFLICT | StatusCode::TOO_MANY_REQUESTS => {
            Answer::unknown(format!("it answers {status}: {said}"))
        }
        _ if status.is_server_error() => Answer::unknown(format!("it answers {status}: {said}")),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Answer::denied(format!("it answers {status}: {said}")),
        _ => Answer::refused(format!("it answers {status}: {said}")),
    }
}

fn of_error<T>(error: &reqwest::Error) -> Answer<T> {
    let said = clean(&innermost(error));
    if tls::is_distrust(error) { Answer::refused(said) } else { Answer::unknown(said) }
}

#[async_trait]
impl PowerDevice for Webhook {
    async fn status(&self, deadline: Duration) -> Answer<Power> {
        self.within("status", deadline).await.and_then(|said| match said.get("power").and_then(Value::as_str) {
            Some("on") => Answer::Confirmed(Power::On),
            Some("off") => Answer::Confirmed(Power::Off),
            _ => Answer::unknown("it does not say `power` as \"on\" or \"off\""),
        })
    }

    async fn off(&self, deadline: Duration) -> Answer<()> {
        let off = async {
            self.newest_off.sends();
            self.switch(OFF, deadline).await
        };
        self.newest_off.watch(off).await
    }

    async fn on(&self, deadline: Duration) -> Answer<()> {
        self.switch("on", deadline).await
    }

    /// It may wait for the power to go.
    fn patience(&self) -> Duration {
        most_of(self.settings.timeout)
    }

    fn goes_on_for(&self) -> Duration {
        self.newest_off.goes_on_for()
    }

    fn describe(&self) -> String {
        let url = self.settings.url.split(['?', '#']).next().unwrap_or_default();
        format!("webhook {url} for {}", self.settings.host)
    }

    async fn machine_id(&self, deadline: Duration) -> Answer<String> {
        match self.within("machine_id", deadline).await {
            Answer::Confirmed(said) => {
                let told = said.get("machine_id").and_then(Value::as_str).and_then(normalize);
                told.map_or_else(|| Answer::refused("it cannot tell which machine is behind it"), Answer::Confirmed)
            }
            Answer::Refused { detail, .. } => {
                Answer::refused(format!("it cannot tell which machine is behind it: {detail}"))
            }
            Answer::Unknown { detail } => Answer::Unknown { detail },
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::{Arc, Mutex, PoisonError};

    use holdfast_policies::time::Span;

    use super::*;
    use crate::{
        benches::SETTLED,
        https_server::{Reply, Request, Server},
    };

    const KEY: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz";

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Quirk {
        None,
        Stuck,
        Slow,
        Fails,
    }

    struct State {
        on: bool,
        offs: u32,
        quirk: Quirk,
    }

    /// Automation in this process; it checks signatures.
    pub(crate) struct Automation {
        server: Server,
        state: Arc<Mutex<State>>,
    }

    impl Automation {
        pub(crate) async fn start() -> Self {
            let state = Arc::new(Mutex::new(State { on: true, offs: 0, quirk: Quirk::None }));
            let answering = Arc::clone(&state);
            let server =
                Server::start(move |request| answering.lock().unwrap_or_else(PoisonError::into_inner).reply(request))
                    .await;
            Self { server, state }
        }

        pub(crate) fn settings(&self) -> WebhookDevice {
            WebhookDevice {
                url: format!("https://127.0.0.1:{}/power", self.server.port()),
                host: "hv-a".to_owned(),
                key_file: self.server.secret_file(KEY),
                trust: self.server.trust(),
                wiring_verified_by: None,
                timeout: Span::secs(4),
            }
        }

        pub(crate) fn device(&self) -> Webhook {
            Webhook { newest_off: NewestOff::done_within(SETTLED), ..Webhook::new(self.settings()) }
        }

        pub(crate) fn quirk(&self, quirk: Quirk) {
            self.state.lock().unwrap().quirk = quirk;
        }

        pub(crate) fn set_power(&self, on: bool) {
            self.state.lock().unwrap().on = on;
        }

        pub(crate) fn is_on(&self) -> bool {
            self.state.lock().unwrap().on
        }

        pub(crate) fn offs(&self) -> u32 {
            self.state.lock().unwrap().offs
        }
    }

    impl State {
        fn reply(&mut self, request: &Request) -> Reply {
            let body = String::from_utf8(request.body.clone()).unwrap();
            let seconds = request.header("webhook-timestamp").parse().unwrap();
            let expected = sign(&key(KEY).unwrap(), request.header("webhook-id"), seconds, &body);
            if request.header("webhook-signature") != expected {
                return Reply::new(401, json!("bad signature"));
            }
            if self.quirk == Quirk::Fails {
                return Reply::new(503, json!("scripted failure"));
            }
            let said = request.json();
            assert_eq!(said["host"], "hv-a");
            let answer = match said["action"].as_str().unwrap() {
                "status" => json!({ "power": if self.on { "on" } else { "off" } }),
                "machine_id" => json!({ "machine_id": "33221100-5544-7766-8899-AABBCCDDEEFF" }),
                action => {
                    self.offs += u32::from(action == "off");
                    if self.quirk != Quirk::Stuck {
                        self.on = action == "on";
                    }
                    json!({})
                }
            };
            let late = if self.quirk == Quirk::Slow { Duration::from_millis(400) } else { Duration::ZERO };
            Reply { late, ..Reply::new(200, answer) }
        }
    }

    #[tokio::test]
    async fn only_what_is_signed_with_the_right_key_is_obeyed() {
        const CALL: Duration = Duration::from_secs(10);
        let automation = Automation::start().await;
        for (key, says) in [
            ("whsec_OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5", "401"),
            ("whsec_MDEy", "holds no key"),
            ("not base64!", "holds no key"),
        ] {
            let settings = WebhookDevice { key_file: automation.server.secret_file(key), ..automation.settings() };
            let Answer::Refused { detail, denied } = Webhook::new(settings).off(CALL).await else { panic!("{key}") };
            assert!(detail.contains(says) && denied == (says == "401"), "{detail}");
        }
        assert_eq!((automation.offs(), automation.is_on()), (0, true));
    }

    /// See: the example of the specification of Standard Webhooks.
    #[test]
    fn a_signature_is_the_one_of_the_specification() {
        let key = key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = sign(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, "{\"test\": 2432232314}");
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
