//! A webhook: the incident as JSON, with the cluster's id beside it. `incident.id` and `incident.seq` together name one
//! change, by which the receiver drops what it already has.

use holdfast_policies::incident::Incident;
use serde_json::json;

use super::request::{self, RenderError, Request};

pub(super) fn render(url: &str, cluster: &str, incident: &Incident) -> Result<Request, RenderError> {
    let url = request::parse_url(url)?;
    let mut told = serde_json::to_value(incident).map_err(RenderError::Json)?;
    if let Some(fields) = told.as_object_mut() {
        // Who else was told is nobody's business, and the keys of other receivers hold their addresses.
        fields.remove("delivered");
        // What services say of themselves stays in the cluster: `explain` tells it.
        fields.remove("seen");
    }
    let what = format!("incident {} change {}", incident.id, incident.seq);
    Request::new(url, "webhook", &what, &json!({ "cluster": cluster, "incident": told }), None)
}

#[cfg(test)]
mod tests {
    use super::{super::tests::incident, *};

    #[test]
    fn a_webhook_neither_tells_of_other_receivers_nor_shows_its_own_address() {
        let mut told = incident(7);
        told.delivered.insert("webhook:https://hooks.example/T0/other".to_owned(), 1);
        told.saw(told.opened, &["host:hv-b fails (other words of the service)".to_owned()]);
        let request = render("https://user:hunter2@hooks.example/T1/path?token=abc", "prod", &told).unwrap();
        let body = String::from_utf8(request.body.clone()).unwrap();
        assert!(
            !body.contains("other") && body.contains("\"cluster\":\"prod\"") && body.contains("\"seq\":1"),
            "{body}"
        );
        let shown = format!("{request:?} {}", request.without_secrets("POST /T1/path?token=abc by hunter2"));
        for secret in ["hunter2", "T1", "abc"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        assert!(shown.contains("https://hooks.example"), "{shown}");
    }

    #[test]
    fn an_address_that_is_none_is_refused_without_being_shown() {
        for bad in ["ftp://hunter2/", "hunter2", "http://", "file:///hunter2"] {
            let error = render(bad, "prod", &incident(1)).unwrap_err();
            assert!(matches!(error, RenderError::Url { .. }) && !error.to_string().contains("hunter2"), "{error}");
        }
    }
}
