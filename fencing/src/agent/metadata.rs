//! What a fence agent says of itself: its options and actions, so that nothing is sent that it would ignore.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use holdfast_policies::{fence_agent, observe::clean};

use crate::program::Program;

/// The option that a password is given with.
pub(super) const PASSWORD: &str = "password";
/// What it was called in older agents.
const PASSWORD_OLD: &str = "passwd";

/// Longest description, in bytes; the longest in use has 12 KB.
const DESCRIPTION_BYTES_MAX: u64 = 256 * 1024;
/// How long a description counts: packages are updated while supervisors run.
const KEPT_FOR: Duration = Duration::from_secs(3600);
/// Agents whose descriptions are kept; there are fewer than a hundred in all, and hosts use few of them.
const KEPT_MAX: usize = 128;

/// Descriptions read lately. Reading one costs a start of an interpreter, and every question would pay it.
static KEPT: Mutex<BTreeMap<String, (Instant, Arc<Metadata>)>> = Mutex::new(BTreeMap::new());

/// What an agent says of itself.
#[derive(Debug, Default)]
pub(super) struct Metadata {
    parameters: BTreeMap<String, Parameter>,
    actions: BTreeSet<String>,
    /// It cuts a host off from storage or a network, and is to let it back in whenever that starts: so says its action `on`.
    is_fabric: bool,
}

#[derive(Debug)]
struct Parameter {
    kind: Kind,
    required: bool,
    /// Kept for older configurations; another one has taken its place.
    deprecated: bool,
    /// The parameter whose place it has taken.
    obsoletes: Option<String>,
}

#[derive(Debug)]
enum Kind {
    Text,
    Integer,
    Boolean,
    OneOf(Vec<String>),
}

/// Why there is no description.
#[derive(Debug, thiserror::Error)]
pub(super) enum MetadataError {
    #[error("cannot run {agent}: is the package with it installed on this host?")]
    Run {
        agent: String,
        #[source]
        cause: std::io::Error,
    },
    #[error("{agent} does not describe itself: {said}")]
    Silent { agent: String, said: String },
    #[error("cannot read how {agent} describes itself")]
    Xml {
        agent: String,
        #[source]
        cause: roxmltree::Error,
    },
    #[error("{agent} is no fence agent: it describes no parameters or actions")]
    Empty { agent: String },
}

/// What an agent says of itself, asked now or a short time ago.
pub(super) async fn of(agent: &str) -> Result<Arc<Metadata>, MetadataError> {
    let lock = || KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let known = lock().get(agent).filter(|(when, _)| when.elapsed() < KEPT_FOR).map(|(_, known)| Arc::clone(known));
    if let Some(known) = known {
        return Ok(known);
    }
    let metadata = Arc::new(parse(agent, &ask(agent).await?)?);
    let mut kept = lock();
    if kept.len() >= KEPT_MAX {
        kept.clear();
    }
    kept.insert(agent.to_owned(), (Instant::now(), Arc::clone(&metadata)));
    Ok(metadata)
}

async fn ask(agent: &str) -> Result<String, MetadataError> {
    let stdin = "action=metadata\n";
    let program =
        Program { name: agent, arguments: &[], environment: &[], stdin, output_bytes_max: DESCRIPTION_BYTES_MAX };
    let ended = program.run().await.map_err(|cause| MetadataError::Run { agent: agent.to_owned(), cause })?;
    if ended.code != Some(0) || ended.stdout.trim().is_empty() {
        return Err(MetadataError::Silent { agent: agent.to_owned(), said: clean(ended.stderr.trim()) });
    }
    Ok(ended.stdout)
}

fn parse(agent: &str, text: &str) -> Result<Metadata, MetadataError> {
    let document = roxmltree::Document::parse(text.trim_start())
        .map_err(|cause| MetadataError::Xml { agent: agent.to_owned(), cause })?;
    let mut metadata = Metadata::default();
    for node in document.descendants() {
        let Some(name) = node.attribute("name") else { continue };
        match node.tag_name().name() {
            "parameter" => {
                metadata.parameters.insert(name.to_owned(), parameter(node));
            }
            "action" => {
                metadata.is_fabric |= name == "on" && node.attribute("automatic") == Some("1");
                metadata.actions.insert(name.to_owned());
            }
            _ => {}
        }
    }
    if metadata.parameters.is_empty() || metadata.actions.is_empty() {
        return Err(MetadataError::Empty { agent: agent.to_owned() });
    }
    Ok(metadata)
}

fn parameter(node: roxmltree::Node<'_, '_>) -> Parameter {
    let content = node.children().find(|child| child.has_tag_name("content"));
    let kind = match content.and_then(|content| content.attribute("type")) {
        Some("integer" | "second") => Kind::Integer,
        Some("boolean") => Kind::Boolean,
        Some("select") => {
            let options = content.into_iter().flat_map(|content| content.children());
            Kind::OneOf(options.filter_map(|option| option.attribute("value")).map(str::to_owned).collect())
        }
        _ => Kind::Text,
    };
    let is_set = |name| node.attribute(name) == Some("1");
    Parameter {
        kind,
        required: is_set("required"),
        deprecated: is_set("deprecated"),
        obsoletes: node.attribute("obsoletes").map(str::to_owned),
    }
}

impl Metadata {
    /// Whether the agent has this action.
    pub(super) fn can(&self, action: &str) -> bool {
        self.actions.contains(action)
    }

    /// Why its "off" would be no word that its host has no power, and so none that no guest runs there.
    pub(super) fn why_unbelieved(&self, agent: &str) -> Option<&'static str> {
        if self.is_fabric {
            return Some(fence_agent::CUTS_OFF);
        }
        fence_agent::why_unbelieved(agent)
    }

    /// The option that takes a password, if any does.
    pub(super) fn password_option(&self) -> Option<&'static str> {
        [PASSWORD, PASSWORD_OLD].into_iter().find(|name| self.parameters.contains_key(*name))
    }

    /// What is wrong with these options: unknown names, odd values, missing ones.
    pub(super) fn mistakes(&self, options: &BTreeMap<String, String>, with_password: bool) -> Vec<String> {
        let mut mistakes = Vec::new();
        for (name, value) in options {
            match self.parameters.get(name) {
                None => mistakes.push(format!("it has no option {name:?}{}", self.guess(name))),
                Some(parameter) => {
                    mistakes.extend(parameter.kind.mistake(name, value));
                    mistakes.extend(off_too_soon(name, value));
                }
            }
        }
        let given = |name: &str| options.contains_key(name) || (with_password && self.password_option() == Some(name));
        for (name, parameter) in &self.parameters {
            let by_its_old_name = parameter.obsoletes.as_deref().is_some_and(given);
            if parameter.required && !parameter.deprecated && name != "action" && !given(name) && !by_its_old_name {
                mistakes.push(format!("it needs the option {name:?}"));
            }
        }
        mistakes
    }

    /// Options are often written like those of another agent.
    fn guess(&self, name: &str) -> String {
        let plain = |text: &str| text.replace(['-', '_'], "").to_ascii_lowercase();
        let near = self.parameters.keys().find(|known| {
            let (known, name) = (plain(known), plain(name));
            known == name || known.starts_with(&name) || name.starts_with(&known)
        });
        near.map(|near| format!(", perhaps {near:?} is meant")).unwrap_or_default()
    }
}

impl Kind {
    fn mistake(&self, name: &str, value: &str) -> Option<String> {
        let lower = value.to_ascii_lowercase();
        let (fine, expected) = match self {
            Self::Text => (true, String::new()),
            Self::Integer => (value.parse::<i64>().is_ok(), "a whole number".to_owned()),
            Self::Boolean => (
                ["1", "0", "yes", "no", "on", "off", "true", "false"].contains(&lower.as_str()),
                "one of 1, 0, yes, no, on, off, true, false".to_owned(),
            ),
            Self::OneOf(words) => {
                (words.iter().any(|word| word.eq_ignore_ascii_case(value)), format!("one of {}", words.join(", ")))
            }
        };
        (!fine).then(|| format!("option {name:?} must be {expected}, not {value:?}"))
    }
}

/// What an option has an agent say "off" of, if it is set.
fn off_too_soon(name: &str, value: &str) -> Option<String> {
    fence_agent::off_too_soon(name, value).map(|what| format!("with option {name:?} {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DESCRIPTION: &str = r#"<?xml version="1.0" ?>
<resource-agent name="fence_x" shortdesc="x">
<parameters>
  <parameter name="action" unique="0" required="1"><content type="string" default="reboot"/></parameter>
  <parameter name="ip" unique="0" required="1" obsoletes="ipaddr"><content type="string"/></parameter>
  <parameter name="ipaddr" unique="0" required="1" deprecated="1"><content type="string"/></parameter>
  <parameter name="password" unique="0" required="1" obsoletes="passwd"><content type="string"/></parameter>
  <parameter name="ssl" unique="0" required="0"><content type="boolean"/></parameter>
  <parameter name="power_wait" unique="0" required="0"><content type="second" default="0"/></parameter>
  <parameter name="missing_as_off" unique="0" required="0"><content type="boolean"/></parameter>
  <parameter name="network-fencing" unique="0" required="0" deprecated="1"><content type="boolean"/></parameter>
  <parameter name="network_fencing" unique="0" required="0"><content type="boolean"/></parameter>
  <parameter name="ipport" unique="0" required="0"><content type="integer" default="23"/></parameter>
  <parameter name="privlvl" unique="0" required="0">
    <content type="select" default="administrator"><option value="operator"/><option value="administrator"/></content>
  </parameter>
</parameters>
<actions><action name="on" automatic="0"/><action name="off"/><action name="status"/></actions>
</resource-agent>"#;

    fn mistakes(options: &[(&str, &str)], with_password: bool) -> Vec<String> {
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        parse("fence_x", DESCRIPTION).unwrap().mistakes(&options, with_password)
    }

    #[test]
    fn what_an_agent_would_ignore_or_miss_is_a_mistake() {
        let right = [("ip", "a"), ("ssl", "ON"), ("power_wait", "2"), ("ipport", "161"), ("privlvl", "OPERATOR")];
        assert_eq!(mistakes(&right, true), [""; 0]);
        assert_eq!(mistakes(&[("ipaddr", "a")], true), [""; 0]);
        assert_eq!(mistakes(&[], false), ["it needs the option \"ip\"", "it needs the option \"password\""]);
        let wrong =
            [("ip", "a"), ("ssl", "maybe"), ("power_wait", "long"), ("ipport", "x"), ("privlvl", "root"), ("pass", "")];
        assert_eq!(
            mistakes(&wrong, true),
            [
                "option \"ipport\" must be a whole number, not \"x\"",
                "it has no option \"pass\", perhaps \"password\" is meant",
                "option \"power_wait\" must be a whole number, not \"long\"",
                "option \"privlvl\" must be one of operator, administrator, not \"root\"",
                "option \"ssl\" must be one of 1, 0, yes, no, on, off, true, false, not \"maybe\"",
            ]
        );
    }

    #[test]
    fn what_an_agent_does_not_find_or_has_cut_off_does_not_count_as_off() {
        for option in ["missing_as_off", "network_fencing", "network-fencing"] {
            for (value, fine) in [("1", false), ("True", false), ("0", true), ("no", true)] {
                let found = mistakes(&[("ip", "a"), (option, value)], true);
                assert_eq!(found.is_empty(), fine, "{option} {value}: {found:?}");
            }
        }
    }

    #[test]
    fn an_agent_that_leaves_its_host_running_is_told_from_one_that_switches_power() {
        let why = |agent: &str, text: &str| parse(agent, text).unwrap().why_unbelieved(agent);
        assert_eq!(why("fence_x", DESCRIPTION), None);
        let fabric = DESCRIPTION.replace("automatic=\"0\"", "on_target=\"1\" automatic=\"1\"");
        assert!(why("fence_x", &fabric).is_some_and(|why| why.contains("guests run on")));
        assert!(why("fence_sbd", DESCRIPTION).is_some_and(|why| why.contains("left for the host to read")));
        assert!(why("fence_skalar", DESCRIPTION).is_some_and(|why| why.contains("not reached")));
        assert!(why("fence_xvm", DESCRIPTION).is_some_and(|why| why.contains("declare `libvirt`")));
        assert!(why("fence_ilo4_ssh", DESCRIPTION).is_some_and(|why| why.contains("half of the answer")));
        assert!(why("fence_lpar", DESCRIPTION).is_some_and(|why| why.contains("being moved")));
        assert!(why("fence_vbox", DESCRIPTION).is_some_and(|why| why.contains("cannot be had")));
        assert!(why("fence_rhevm", DESCRIPTION).is_some_and(|why| why.contains("no status")));
        assert!(why("fence_cisco_ucs", DESCRIPTION).is_some_and(|why| why.contains("not the expected one")));
        assert!(why("fence_ibmz", DESCRIPTION).is_some_and(|why| why.contains("not reached")));
        assert!(why("fence_zvmip", DESCRIPTION).is_some_and(|why| why.contains("wherever that runs")));
    }

    #[test]
    fn what_is_no_description_is_an_error_and_entities_are_not_expanded() {
        for odd in ["", "<a>", "<a/>", "usage: fence_x", "<!DOCTYPE a [<!ENTITY b \"c\">]><a>&b;</a>"] {
            assert!(parse("fence_x", odd).is_err(), "{odd:?}");
        }
    }
}
