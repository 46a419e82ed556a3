//! Whether an answer over HTTP is the right one, wherever it was asked.

use holdfast_policies::probe::HttpProbe;
use regex::bytes::Regex;
use serde_json::Value;

use crate::finding::{BODY_BYTES_MAX, Finding, contains};

/// What came back over HTTP.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: u16,
    /// Where a redirect leads; only hosts follow them.
    #[cfg_attr(not(feature = "network"), expect(dead_code))]
    pub location: Option<String>,
    /// At most [`BODY_BYTES_MAX`] bytes.
    pub body: Vec<u8>,
}

/// Judges a whole answer; `how` says in short what came.
pub(crate) fn of_answer(answer: &Answer, probe: &HttpProbe, pattern: Option<&Regex>, how: &str) -> Finding {
    if probe.status.contains(answer.status) {
        of_body(&answer.body, probe, pattern, how)
    } else {
        Finding::fail(format!("status {}, wanted {}", answer.status, probe.status))
    }
}

/// Judges a body whose status was right.
pub(crate) fn of_body(body: &[u8], probe: &HttpProbe, pattern: Option<&Regex>, how: &str) -> Finding {
    let body = body.get(..BODY_BYTES_MAX).unwrap_or(body);
    let size = body.len();
    if let Some(text) = &probe.body
        && !contains(body, text.as_bytes())
    {
        return Finding::fail(format!("{how}, but the body ({size} bytes) does not contain {text:?}"));
    }
    if let Some(pattern) = pattern
        && !pattern.is_match(body)
    {
        return Finding::fail(format!("{how}, but the body ({size} bytes) does not match {:?}", pattern.as_str()));
    }
    match of_json(body, probe) {
        Some(wrong) => Finding::fail(format!("{how}, but {wrong}")),
        None => Finding::pass(how),
    }
}

/// What is wrong with a JSON body.
fn of_json(body: &[u8], probe: &HttpProbe) -> Option<String> {
    if probe.json.is_empty() {
        return None;
    }
    // Files of Windows begin with it, and readers may pass over it (RFC 8259, 8.1).
    let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let document: Value = match serde_json::from_slice(text) {
        Ok(document) => document,
        Err(_) if body.len() >= BODY_BYTES_MAX => {
            return Some(format!("the body is longer than the {BODY_BYTES_MAX} bytes that are read"));
        }
        Err(error) => return Some(format!("the body is not json: {error}")),
    };
    probe.json.iter().find_map(|(pointer, wanted)| match document.pointer(pointer) {
        None => Some(format!("the body has nothing at {pointer}")),
        Some(found) if is_alike(found, wanted) => None,
        Some(found) => Some(format!("{pointer} is {found}, wanted {wanted}")),
    })
}

/// JSON knows one kind of numbers (RFC 8259, 6): `3` and `3.0` are the same, and some libraries write each as the other.
fn is_alike(found: &Value, wanted: &Value) -> bool {
    let has_fraction = found.is_f64() || wanted.is_f64();
    found == wanted || (has_fraction && found.as_f64().is_some() && found.as_f64() == wanted.as_f64())
}

#[cfg(test)]
mod tests {
    use holdfast_policies::{model::Statuses, observe::Outcome, probe::pattern};

    use super::*;

    fn judged(body: &str, set: impl FnOnce(&mut HttpProbe)) -> Finding {
        let mut probe = HttpProbe::get("http://{address}/");
        set(&mut probe);
        let pattern = probe.body_matches.as_deref().map(|text| pattern::build(text).unwrap());
        let answer = Answer { status: 200, location: None, body: body.into() };
        of_answer(&answer, &probe, pattern.as_ref(), "status 200")
    }

    #[test]
    fn status_text_pattern_and_json_must_all_be_right() {
        let json = |pointer: &'static str, value: Value| {
            move |probe: &mut HttpProbe| {
                probe.json.insert(pointer.to_owned(), value);
            }
        };
        let body = r#"{ "status": "ok", "replicas": 3, "nodes": [{ "role": "leader" }] }"#;
        assert_eq!(judged(body, |_| ()).outcome, Outcome::Pass);
        assert_eq!(judged(body, |probe| probe.status = Statuses(vec![(201, 599)])).outcome, Outcome::Fail);
        assert_eq!(
            judged(body, |probe| probe.body_matches = Some(r#""replicas": [2-9]"#.to_owned())).outcome,
            Outcome::Pass
        );
        assert_eq!(judged(body, |probe| probe.body_matches = Some("^ok".to_owned())).outcome, Outcome::Fail);
        assert_eq!(judged(body, json("/replicas", 3.into())).outcome, Outcome::Pass);
        assert_eq!(judged(body, json("/nodes/0/role", "leader".into())).outcome, Outcome::Pass);
        let wrong = judged(body, json("/replicas", "3".into()));
        assert_eq!(wrong.detail, "status 200, but /replicas is 3, wanted \"3\"");
        assert_eq!(judged(body, json("/absent", 3.into())).outcome, Outcome::Fail);
        let fraction = r#"{ "replicas": 3.0, "large": 9007199254740993 }"#;
        for (pointer, value, wanted) in [
            ("/replicas", Value::from(3), Outcome::Pass),
            ("/replicas", Value::from(4), Outcome::Fail),
            ("/replicas", Value::from("3"), Outcome::Fail),
            ("/large", Value::from(9_007_199_254_740_992_u64), Outcome::Fail),
        ] {
            assert_eq!(judged(fraction, json(pointer, value.clone())).outcome, wanted, "{pointer} {value}");
        }
        assert!(judged("ok", json("/a", 3.into())).detail.contains("not json"));
        assert_eq!(judged("\u{feff}{ \"a\": 3 }", json("/a", 3.into())).outcome, Outcome::Pass, "a byte order mark");
    }

    #[test]
    fn only_the_first_part_of_a_body_is_searched() {
        let body = "x".repeat(BODY_BYTES_MAX) + "ok";
        assert_eq!(judged(&body, |probe| probe.body = Some("ok".to_owned())).outcome, Outcome::Fail);
        assert_eq!(judged("all ok", |probe| probe.body = Some("ok".to_owned())).outcome, Outcome::Pass);
    }
}
