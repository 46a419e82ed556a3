//! Pages that operators look things up in forget nothing: no kind of probe or power device, no setting, no incident. What
//! there is, the readers of policies say themselves when they are given nonsense.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context, Result, ensure};
use holdfast_policies::yaml::{Finding, Source, parse, parse_host};

use super::{read, top};

/// What every page of a kind of probe says, beside its settings.
const SAID_OF_EACH_PROBE: [&str; 2] = ["**What raising costs.**", "**What it cannot see.**"];

/// Where incidents are opened.
const TELLERS: [&str; 2] = ["policies/src", "supervisor/src/coordinator"];

/// What looks like the key of an incident there: the key under which silent hosts are counted as one.
const NO_INCIDENT: &str = "domain";

/// The sections of docs/POLICIES.md, each with declarations that have nonsense where it says what can stand.
const DECLARED: [(&str, &[&str]); 10] = [
    ("Sections", &["nonsense: 1"]),
    ("Guests", &["guests: { g: { nonsense: 1 } }"]),
    (
        "The machine",
        &[
            "guests: { g: { qemu: { nonsense: 1 } } }",
            "guests: { g: { qemu: { disks: [{ nonsense: 1 }] } } }",
            "guests: { g: { qemu: { nics: [{ nonsense: 1 }] } } }",
            "guests: { g: { qemu: { vsock: { nonsense: 1 } } } }",
        ],
    ),
    ("Policies", &["policies: { p: { nonsense: 1 } }"]),
    (
        "Ladder",
        &[
            "policies: { p: { ladder: [nonsense] } }",
            "policies: { p: { on_storage_error: [nonsense] } }",
            "policies: { p: { ladder: [{ restart_service: { nonsense: 1 } }] } }",
            "policies: { p: { ladder: [{ failover: { nonsense: 1 } }] } }",
            "policies: { p: { ladder: [{ page: { nonsense: 1 } }] } }",
        ],
    ),
    ("Placement", &["policies: { p: { match: { a: b }, placement: { nonsense: 1 } } }"]),
    (
        "Rules",
        &[
            "rules: { r: { nonsense: {} } }",
            "rules: { r: { hosts: { nonsense: 1 } } }",
            "rules: { r: { together: { nonsense: 1 } } }",
            "rules: { r: { apart: { nonsense: 1 } } }",
            "rules: { r: { order: { nonsense: 1 } } }",
        ],
    ),
    ("Hosts", &["hosts: { h: { nonsense: 1 } }"]),
    ("Cluster", &["cluster: { nonsense: 1 }", "cluster: { capacities: { gpu: { nonsense: 1 } } }"]),
    (
        "Alerts",
        &[
            "alerts: [{ nonsense: {} }]",
            "alerts: [{ pagerduty: { nonsense: 1 } }]",
            "alerts: [{ alertmanager: { nonsense: 1 } }]",
            "alerts: [{ webhook: { nonsense: 1 } }]",
        ],
    ),
];

#[test]
fn every_kind_of_probe_has_a_page_with_all_its_settings_what_it_costs_and_what_it_cannot_see() -> Result<()> {
    let overview = read("docs/probes/README.md")?;
    let kinds = allowed(&service("probe: { nonsense: {} }"))?;
    ensure!(kinds.len() > 10, "the reader knows only {kinds:?}");
    for kind in &kinds {
        ensure!(overview.contains(&format!("[`{kind}`]({kind}.md)")), "docs/probes/README.md does not list {kind}");
        let name = format!("docs/probes/{kind}.md");
        let text = read(&name)?;
        for said in SAID_OF_EACH_PROBE {
            ensure!(text.contains(said), "{name} has no paragraph \"{said}\"");
        }
        names_all(&name, &text, &allowed(&service(&format!("probe: {{ {kind}: {{ nonsense: 1 }} }}")))?)?;
    }
    Ok(())
}

#[test]
fn the_page_about_settings_names_all_that_a_service_can_have() -> Result<()> {
    let mut settings = allowed(&service("probe: ping, nonsense: 1"))?;
    ensure!(settings.remove("probe"), "a service has a probe");
    ensure!(!settings.is_empty(), "the reader knows no settings of a service");
    names_all("docs/probes/settings.md", &read("docs/probes/settings.md")?, &settings)
}

#[test]
fn every_kind_of_fence_level_has_a_section_with_all_its_settings() -> Result<()> {
    let text = read("docs/FENCING.md")?;
    let common = rows(section(&text, "Levels")?);
    let mut kinds = allowed(&level("nonsense: {}"))?;
    ensure!(kinds.remove("all"), "devices can be taken together");
    ensure!(kinds.len() > 5, "the reader knows only {kinds:?}");
    for kind in &kinds {
        let settings = allowed(&level(&format!("{kind}: {{ nonsense: 1 }}")))?;
        let own: BTreeSet<String> = settings.difference(&common).cloned().collect();
        names_all(&format!("docs/FENCING.md, {kind},"), section(&text, kind)?, &own)?;
    }
    Ok(())
}

#[test]
fn the_page_about_policies_names_every_key_of_every_section() -> Result<()> {
    let text = read("docs/POLICIES.md")?;
    for (heading, declarations) in DECLARED {
        let part = section(&text, heading)?;
        for declaration in declarations {
            names_all(&format!("docs/POLICIES.md, {heading},"), part, &allowed(declaration)?)?;
        }
    }
    Ok(())
}

#[test]
fn the_example_of_a_host_file_shows_every_key() -> Result<()> {
    let text = read("examples/host.yaml")?;
    let mut keys = allowed_in_host("nonsense: 1")?;
    for part in ["tls", "qemu", "watchdog", "timing"] {
        keys.extend(allowed_in_host(&format!("{part}: {{ nonsense: 1 }}"))?);
    }
    ensure!(keys.remove("memory_mib"), "memory can be given in MiB too");
    let missing: Vec<&String> = keys.iter().filter(|key| !text.contains(&format!("{key}:"))).collect();
    ensure!(missing.is_empty(), "examples/host.yaml does not show {missing:?}");
    Ok(())
}

#[test]
fn operators_find_every_incident_in_the_table_of_alerts_and_no_other() -> Result<()> {
    let operating = read("docs/OPERATING.md")?;
    let table = section(&operating, "Alerts: what each means and what to do")?;
    let first = |row: &str| row.strip_prefix("| `").and_then(|rest| rest.split('`').next()).map(str::to_owned);
    let told: BTreeSet<String> = table.lines().filter_map(first).collect();
    let (of_something, whole): (BTreeSet<String>, BTreeSet<String>) =
        told.into_iter().partition(|key| key.contains('/'));
    let of_something: BTreeSet<&str> = of_something.iter().filter_map(|key| key.split('/').next()).collect();
    let mut code = String::new();
    for folder in TELLERS {
        code.push_str(&code_below(&top().join(folder))?);
    }
    let whole_keys = code.split('"').skip(1).filter_map(key_of_something);
    let opened: BTreeSet<&str> = whole_keys.chain(words_of_keys(&code)).collect();
    ensure!(opened == of_something, "the code opens {opened:?}, the table has {of_something:?}");
    ensure!(!whole.is_empty(), "the table has lost the incidents of the cluster");
    for key in whole {
        ensure!(code.contains(&format!("\"{key}\"")), "no code opens {key}, which the table has");
    }
    Ok(())
}

/// The kind of an incident, where what follows a quotation mark is a key such as `host/{name}`.
fn key_of_something(text: &str) -> Option<&str> {
    let (kind, rest) = text.split_once('/')?;
    let is_word = !kind.is_empty() && kind.chars().all(|character| character.is_ascii_lowercase() || character == '_');
    (is_word && kind != NO_INCIDENT && (rest.is_empty() || rest.starts_with('{'))).then_some(kind)
}

/// The kinds of incidents that are named once, for all their keys.
fn words_of_keys(code: &str) -> impl Iterator<Item = &str> {
    code.split("const ABOUT: &str = \"").skip(1).filter_map(|rest| rest.split('"').next())
}

/// A policy with a service of these settings.
fn service(settings: &str) -> String {
    format!("policies:\n  p:\n    match: {{ a: b }}\n    services:\n      s: {{ {settings} }}\n    ladder: [page]\n")
}

/// The fencing of a host with this level.
fn level(level: &str) -> String {
    format!("fencing:\n  hv-a:\n    - {{ {level} }}\n")
}

/// What the reader of policies would take in place of the word `nonsense`.
fn allowed(text: &str) -> Result<BTreeSet<String>> {
    instead(parse(&[Source { name: "nonsense.yaml", text }]).err(), text)
}

/// The same of the reader of host files.
fn allowed_in_host(text: &str) -> Result<BTreeSet<String>> {
    instead(parse_host(&Source { name: "nonsense.yaml", text }).err(), text)
}

/// What a reader would take in place of the word `nonsense`, by what it minds about it.
fn instead(findings: Option<Vec<Finding>>, text: &str) -> Result<BTreeSet<String>> {
    let findings = findings.context("nonsense is accepted")?;
    let about = findings.iter().find(|finding| finding.what.contains("`nonsense`"));
    let hint = about.and_then(|finding| finding.hint.as_deref()).with_context(|| format!("nobody minds:\n{text}"))?;
    if hint == "nothing is set here" {
        return Ok(BTreeSet::new());
    }
    let listed = hint.strip_prefix("allowed here: ").with_context(|| format!("what is allowed? {hint}"))?;
    Ok(quoted(listed).map(str::to_owned).collect())
}

fn names_all(what: &str, text: &str, settings: &BTreeSet<String>) -> Result<()> {
    let named = rows(text);
    let missing: Vec<&String> = settings.difference(&named).collect();
    ensure!(missing.is_empty(), "{what} has no rows for {missing:?}");
    Ok(())
}

/// What the rows of tables are about: `count.min` is one of `count`.
fn rows(text: &str) -> BTreeSet<String> {
    let first_cells = text.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    first_cells.flat_map(quoted).filter_map(|name| name.split('.').next()).map(str::to_owned).collect()
}

/// What stands below a heading of the second degree.
fn section<'t>(text: &'t str, heading: &str) -> Result<&'t str> {
    let below = text.split_once(&format!("\n## {heading}\n"));
    let (_, below) = below.with_context(|| format!("there is no section \"{heading}\""))?;
    Ok(below.split("\n## ").next().unwrap_or(below))
}

/// What stands between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The code below a folder, without that of tests.
fn code_below(folder: &Path) -> Result<String> {
    let mut code = String::new();
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        let is_test = path.file_stem().is_some_and(|stem| stem.to_string_lossy().contains("tests"));
        if path.is_dir() && !is_test {
            code.push_str(&code_below(&path)?);
        } else if path.extension().is_some_and(|ending| ending == "rs") && !is_test {
            let text = fs::read_to_string(&path)?;
            code.push_str(text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(&text));
        }
    }
    Ok(code)
}
