//! What a Redfish service says of a system: which one it is, its power, how it can be reset, and which machine it is.

use holdfast_policies::observe::clean;
use serde_json::{Value, json};

use super::service::{ROOT, Service, Trouble};
use crate::{device::Power, machine_id::normalize};

const RESET: &str = "#ComputerSystem.Reset";
/// Pages of a collection that are read; each has dozens of systems.
const PAGES_MAX: usize = 16;
/// Systems that are named in a refusal.
const NAMED_MAX: usize = 8;

/// How a system is reset.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reset {
    /// Where the action is.
    pub target: String,
    /// Which of its types is meant.
    pub kind: String,
}

impl Reset {
    pub(super) fn body(&self) -> Value {
        json!({ "ResetType": self.kind })
    }
}

/// The path of the system that is meant: the one that is named, or the only one.
pub(super) async fn find(service: &Service, wanted: Option<&str>) -> Result<String, Trouble> {
    if let Some(path) = wanted.filter(|wanted| wanted.starts_with('/')) {
        return Ok(path.to_owned());
    }
    let root = service.get(ROOT).await?;
    let systems = link(root.get("Systems"))
        .ok_or_else(|| Trouble::Refused("the service has no systems: it is no Redfish service".to_owned()))?;
    choose(&members(service, systems).await?, wanted)
}

async fn members(service: &Service, systems: &str) -> Result<Vec<String>, Trouble> {
    let mut members = Vec::new();
    let mut next = Some(systems.to_owned());
    for _ in 0..PAGES_MAX {
        let Some(path) = next else { break };
        let page = service.get(&path).await?;
        let listed = page.get("Members").and_then(Value::as_array);
        members.extend(listed.into_iter().flatten().filter_map(|member| link(Some(member))).map(str::to_owned));
        next = page.get("Members@odata.nextLink").and_then(Value::as_str).map(str::to_owned);
    }
    Ok(members)
}

fn choose(members: &[String], wanted: Option<&str>) -> Result<String, Trouble> {
    let id = |path: &String| path.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
    let listed = || clean(&members.iter().take(NAMED_MAX).map(id).collect::<Vec<_>>().join(", "));
    match (wanted, members) {
        // Also what a service says that starts.
        (_, []) => Err(Trouble::Unknown("the service has no system".to_owned())),
        (Some(wanted), _) => members
            .iter()
            .find(|path| id(path) == wanted)
            .cloned()
            .ok_or_else(|| Trouble::Refused(format!("the service has no system {wanted}; it has {}", listed()))),
        (None, [only]) => Ok(only.clone()),
        (None, several) => Err(Trouble::Refused(format!(
            "the service has {} systems ({}): say which one by `system`",
            several.len(),
            listed()
        ))),
    }
}

fn link(resource: Option<&Value>) -> Option<&str> {
    resource?.get("@odata.id")?.as_str()
}

/// Whether a system has power. One that is still going off has.
pub(super) fn power(system: &Value) -> Result<Power, Trouble> {
    match system.get("PowerState").and_then(Value::as_str) {
        Some("Off") => Ok(Power::Off),
        Some("On" | "PoweringOn" | "PoweringOff" | "Paused") => Ok(Power::On),
        Some(other) => Err(Trouble::Unknown(format!("the system's power state is {}", clean(&format!("{other:?}"))))),
        None => Err(Trouble::Unknown("the system does not tell its power state".to_owned())),
    }
}

/// The first of the wanted reset types that the system offers.
pub(super) async fn reset(service: &Service, system: &Value, wanted: &[&str]) -> Result<Reset, Trouble> {
    let action = system
        .get("Actions")
        .and_then(|actions| actions.get(RESET))
        .ok_or_else(|| Trouble::Refused("the system cannot be reset".to_owned()))?;
    let target = action
        .get("target")
        .and_then(Value::as_str)
        .ok_or_else(|| Trouble::Refused("the system does not say where it is reset".to_owned()))?;
    let mut offered = action.get("ResetType@Redfish.AllowableValues").cloned();
    if offered.is_none()
        && let Some(info) = action.get("@Redfish.ActionInfo").and_then(Value::as_str)
    {
        offered = allowable(&service.get(info).await?);
    }
    let kind = pick(offered.as_ref().and_then(Value::as_array), wanted)?;
    Ok(Reset { target: target.to_owned(), kind })
}

/// What newer services say on a page of its own.
fn allowable(info: &Value) -> Option<Value> {
    let parameters = info.get("Parameters")?.as_array()?;
    let reset = parameters.iter().find(|parameter| parameter.get("Name").and_then(Value::as_str) == Some("ResetType"));
    reset?.get("AllowableValues").cloned()
}

fn pick(offered: Option<&Vec<Value>>, wanted: &[&str]) -> Result<String, Trouble> {
    let first = wanted.first().copied().unwrap_or_default();
    // A service that does not say what it offers is asked for what every one should.
    let Some(offered) = offered else { return Ok(first.to_owned()) };
    let found = wanted.iter().find(|kind| offered.iter().any(|offer| offer.as_str() == Some(**kind)));
    found.map(|kind| (*kind).to_owned()).ok_or_else(|| {
        let offered: Vec<_> = offered.iter().filter_map(Value::as_str).collect();
        Trouble::Refused(format!("the system offers no {first}, only {}", clean(&offered.join(", "))))
    })
}

/// The system's UUID.
pub(super) fn machine_id(system: &Value) -> Result<String, Trouble> {
    let uuid = system.get("UUID").and_then(Value::as_str).unwrap_or_default();
    normalize(uuid).ok_or_else(|| Trouble::Refused("the system does not tell its UUID".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_several_systems_one_must_be_named() {
        let members = ["/redfish/v1/Systems/1".to_owned(), "/redfish/v1/Systems/2/".to_owned()];
        assert_eq!(choose(&members, Some("2")).unwrap(), "/redfish/v1/Systems/2/");
        assert_eq!(choose(&members[..1], None).unwrap(), "/redfish/v1/Systems/1");
        for (members, wanted, says) in [
            (&members[..], None, "the service has 2 systems (1, 2): say which one by `system`"),
            (&members[..], Some("3"), "the service has no system 3; it has 1, 2"),
        ] {
            assert_eq!(choose(members, wanted), Err(Trouble::Refused(says.to_owned())));
        }
        for wanted in [None, Some("3")] {
            assert!(matches!(choose(&[], wanted), Err(Trouble::Unknown(_))), "it may be starting");
        }
    }

    #[test]
    fn only_what_is_off_is_off() {
        let state = |state: Value| power(&json!({ "PowerState": state }));
        assert_eq!(state(json!("Off")), Ok(Power::Off));
        for on in ["On", "PoweringOff", "PoweringOn", "Paused"] {
            assert_eq!(state(json!(on)), Ok(Power::On), "{on}");
        }
        for odd in [json!("off"), json!(null), json!(0), json!("Unknown")] {
            assert!(matches!(state(odd.clone()), Err(Trouble::Unknown(_))), "{odd}");
        }
    }

    #[test]
    fn a_reset_type_is_chosen_from_what_is_offered() {
        let offers = |values: &[&str]| values.iter().map(|value| json!(value)).collect::<Vec<_>>();
        assert_eq!(pick(Some(&offers(&["ForceOn", "ForceOff"])), &["On", "ForceOn"]).unwrap(), "ForceOn");
        assert_eq!(pick(None, &["ForceOff"]).unwrap(), "ForceOff");
        assert!(matches!(pick(Some(&offers(&["GracefulShutdown"])), &["ForceOff"]), Err(Trouble::Refused(_))));
        let info = json!({ "Parameters": [{ "Name": "ResetType", "AllowableValues": ["ForceOff"] }] });
        assert_eq!(allowable(&info), Some(json!(["ForceOff"])));
    }
}
