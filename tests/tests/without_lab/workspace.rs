//! The shape of the repository: which package may use which, what must stay out of the deciding core, and documents that
//! say only what is so.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use holdfast_policies::yaml::{Finding, Source, parse, parse_host};
use holdfast_tests::simulator::breaks::Break;
use serde_json::Value;

use super::top;

/// Each package of the workspace, and the packages of the workspace that it may use, in tests too (docs/ARCHITECTURE.md).
const MAY_USE: &[(&str, &[&str])] = &[
    ("base2histogram", &[]),
    ("holdfast-policies", &[]),
    ("holdfast-probes", &["holdfast-policies"]),
    ("holdfast-fencing", &["holdfast-policies"]),
    ("holdfast", &["holdfast-policies", "holdfast-probes", "holdfast-fencing"]),
    ("holdfast-tests", &["holdfast", "holdfast-policies", "holdfast-probes", "holdfast-fencing"]),
];

/// What the deciding core must not be built on, and why. A name that ends with `-` stands for all that begin with it.
const BANNED_BELOW_POLICIES: &[(&str, &str)] = &[
    ("tokio", "a runtime: decisions are plain functions"),
    ("tokio-", "a runtime's tools"),
    ("async-", "asynchronous code waits, and a decision does not"),
    ("futures", "asynchronous code waits, and a decision does not"),
    ("futures-", "asynchronous code waits, and a decision does not"),
    ("smol", "a runtime"),
    ("mio", "sockets"),
    ("socket2", "sockets"),
    ("nix", "system calls"),
    ("rustix", "system calls"),
    ("libc", "system calls"),
    ("windows-sys", "system calls"),
    ("hyper", "the network"),
    ("hyper-", "the network"),
    ("reqwest", "the network"),
    ("ureq", "the network"),
    ("axum", "the network"),
    ("h2", "the network"),
    ("rustls", "the network"),
    ("rand", "chance: a decision must be repeatable"),
    ("rand_core", "chance: a decision must be repeatable"),
    ("fastrand", "chance: a decision must be repeatable"),
    ("getrandom", "chance: a decision must be repeatable"),
    ("uuid", "chance: names of things come from the log's index"),
    ("time", "a clock: time is a parameter"),
    ("chrono", "a clock: time is a parameter"),
    ("jiff", "a clock: time is a parameter"),
    ("rayon", "threads: the order of effects would depend on them"),
    ("crossbeam-", "threads: the order of effects would depend on them"),
    ("tempfile", "files"),
    ("memmap2", "files"),
    ("redb", "files"),
    ("sysinfo", "the machine"),
    ("tracing", "the core reports by values, not by logs"),
    ("log", "the core reports by values, not by logs"),
];

/// All that lies at the top of the repository. What is new belongs into one of these.
const TOP: &[&str] = &[
    ".ci",
    ".clippy.toml",
    ".gitignore",
    ".rustfmt.toml",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "docs",
    "examples",
    "fencing",
    "policies",
    "probes",
    "supervisor",
    "tests",
];

/// What may lie beside it in a working copy: version control, and what `.gitignore` names.
const NOT_OF_THE_REPOSITORY: &[&str] = &[".git", ".cache", "target"];

#[test]
fn packages_use_each_other_in_one_direction_only() -> Result<()> {
    let graph = Graph::read()?;
    let known: BTreeSet<&str> = MAY_USE.iter().map(|(name, _)| *name).collect();
    ensure!(graph.members == known, "the packages are {:?}, the list says {known:?}", graph.members);
    for (name, allowed) in MAY_USE {
        // A package that uses nothing has no entry.
        for other in graph.uses.get(*name).into_iter().flatten().filter(|other| known.contains(other.as_str())) {
            ensure!(allowed.contains(&other.as_str()), "{name} must not use {other} (docs/ARCHITECTURE.md)");
        }
    }
    Ok(())
}

#[test]
fn nothing_below_the_deciding_core_waits_reads_clocks_or_rolls_dice() -> Result<()> {
    let graph = Graph::read()?;
    let below = graph.below("holdfast-policies");
    ensure!(below.contains("serde"), "the walk found only {below:?}");
    for (banned, why) in BANNED_BELOW_POLICIES {
        let found = below.iter().find(|name| *name == banned || (banned.ends_with('-') && name.starts_with(banned)));
        if let Some(name) = found {
            anyhow::bail!("holdfast-policies is built on {name}: {why}");
        }
    }
    Ok(())
}

#[test]
fn every_policy_that_operators_are_shown_is_accepted() -> Result<()> {
    for files in declarations_shown()? {
        match files.as_slice() {
            [(name, text)] => accepted(name, text)?,
            several => all_accepted(&sources(several))?,
        }
    }
    ensure!(!yaml_blocks(&fs::read_to_string(top().join("README.md"))?).is_empty(), "the README shows no policy");
    Ok(())
}

/// What has failed counts as failed until it has passed as often as it must. A rung that waits for less gives way to the next one although
/// it has helped.
#[test]
fn every_ladder_that_operators_are_shown_waits_until_its_services_can_be_seen_to_be_well() -> Result<()> {
    let mut rungs = 0;
    for files in declarations_shown()? {
        // A host file is none.
        let Ok(declared) = parse(&sources(&files)) else { continue };
        for (name, policy) in &declared.policies {
            let waits = policy.ladder.iter().filter(|rung| !rung.wait().0.is_zero());
            for (rung, (service, asked)) in waits.flat_map(|rung| policy.services.iter().map(move |one| (rung, one))) {
                let needed = asked.every.0 * asked.recovers_after + asked.timeout.0;
                let (rung, wait) = (rung.name(), rung.wait());
                ensure!(
                    wait.0 >= needed,
                    "{rung} of {name} waits {wait}, and {service} is seen to be well after {needed:?}"
                );
                rungs += 1;
            }
        }
    }
    ensure!(rungs > 50, "{rungs} are few");
    Ok(())
}

/// Every declaration that operators are shown, as the names and texts of its files.
fn declarations_shown() -> Result<Vec<Vec<(String, String)>>> {
    // The files of the folder are one declaration: one may name what another declares.
    let mut files = Vec::new();
    for file in files_below(&top().join("examples/policies"))?.iter().filter(|file| has_ending(file, "yaml")) {
        files.push((name_of(file), fs::read_to_string(file)?));
    }
    ensure!(!files.is_empty(), "examples/policies holds no policies");
    let mut declarations = vec![files];
    // Each kit is one by itself.
    for kit in files_below(&top().join("examples/kits"))? {
        declarations.push(vec![(name_of(&kit), fs::read_to_string(&kit)?)]);
    }
    let mut pages = vec![top().join("README.md")];
    pages.extend(files_below(&top().join("docs"))?);
    for page in pages.iter().filter(|page| has_ending(page, "md")) {
        for (line, block) in yaml_blocks(&fs::read_to_string(page)?) {
            // The line in the page, so that a finding can be looked up there.
            declarations.push(vec![(name_of(page), format!("{}{block}", "\n".repeat(line)))]);
        }
    }
    Ok(declarations)
}

fn sources(files: &[(String, String)]) -> Vec<Source<'_>> {
    files.iter().map(|(name, text)| Source { name, text }).collect()
}

#[test]
fn the_top_of_the_repository_holds_nothing_unexpected() -> Result<()> {
    let known: BTreeSet<&str> = TOP.iter().chain(NOT_OF_THE_REPOSITORY).copied().collect();
    for entry in fs::read_dir(top())? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // Version control knows no empty folders.
        let empty = entry.file_type()?.is_dir() && fs::read_dir(entry.path())?.next().is_none();
        ensure!(empty || known.contains(name.as_str()), "{name} does not belong at the top of the repository");
    }
    for name in TOP {
        ensure!(top().join(name).exists(), "{name} is missing at the top of the repository");
    }
    Ok(())
}

#[test]
fn the_safety_page_names_only_code_and_tests_that_exist() -> Result<()> {
    let page = fs::read_to_string(top().join("docs/SAFETY.md"))?;
    let tests = all_tests()?;
    let (mut named_tests, mut named_code, mut named_checks) = (0, 0, 0);
    let mut broken = BTreeSet::new();
    for item in items(&page) {
        if let Some(names) = item.strip_prefix("- Tests:").or_else(|| item.strip_prefix("- Lab:")) {
            for name in quoted(names) {
                ensure!(tests.contains(name), "docs/SAFETY.md names the test {name}, which does not exist");
                named_tests += 1;
            }
        } else if let Some(places) = item.strip_prefix("- Code:") {
            named_code += code_exists(places)?;
        } else if let Some(words) = item.strip_prefix("- Simulator:") {
            named_checks += code_exists(words)?;
            broken.extend(breaks_named(words).map(str::to_owned));
        }
    }
    let known: BTreeSet<String> = Break::ALL.iter().map(ToString::to_string).collect();
    ensure!(broken == known, "docs/SAFETY.md names the breaks {broken:?}, and the simulator has {known:?}");
    ensure!(named_checks > 20, "docs/SAFETY.md has lost its simulator lines");
    ensure!(named_tests > 20 && named_code > 20, "docs/SAFETY.md has lost its form");
    Ok(())
}

#[test]
fn the_safety_page_forgets_no_promise_and_no_rule() -> Result<()> {
    let page = fs::read_to_string(top().join("docs/SAFETY.md"))?;
    let promises = (1..=10).map(|number| format!("S{number}")).chain((1..=2).map(|number| format!("L{number}")));
    for name in promises.chain((1..=29).map(|number| format!("R{number}"))) {
        ensure!(page.contains(&format!("\n**{name}** ")), "docs/SAFETY.md says nothing of {name}");
    }
    Ok(())
}

#[test]
fn links_between_documents_lead_somewhere() -> Result<()> {
    let mut pages = vec![top().join("README.md"), top().join("CHANGELOG.md")];
    pages.extend(files_below(&top().join("docs"))?);
    for page in pages.iter().filter(|page| has_ending(page, "md")) {
        let text = fs::read_to_string(page)?;
        let folder = page.parent().context("a page lies in a folder")?;
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (file, part) = link.split_once('#').unwrap_or((link, ""));
            if file.contains("://") {
                continue;
            }
            let target = if file.is_empty() { page.clone() } else { folder.join(file) };
            ensure!(target.exists(), "{} links to {link}, which is not there", name_of(page));
            let found = part.is_empty() || anchors(&fs::read_to_string(&target)?).contains(part);
            ensure!(found, "{} links to {link}, and that page has no such heading", name_of(page));
        }
    }
    Ok(())
}

/// The names by which links lead to the headings of a page.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let kept = |letter: &char| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_');
    let named = |heading: &str| heading.to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-");
    headings.map(named).collect()
}

/// The packages that cargo knows, by name, with what each uses.
struct Graph {
    members: BTreeSet<&'static str>,
    uses: BTreeMap<String, BTreeSet<String>>,
    /// Without what only tests use.
    builds_on: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    fn read() -> Result<Self> {
        let cargo = std::env::var_os("CARGO").context("cargo runs tests")?;
        let told = Command::new(&cargo).arg("-vV").output()?;
        let told = String::from_utf8(told.stdout)?;
        let host = told.lines().find_map(|line| line.strip_prefix("host: ")).context("cargo tells its host")?;
        let mut metadata = Command::new(&cargo);
        metadata.args(["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", host]);
        let output = metadata.current_dir(top()).output()?;
        ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
        Self::from(&serde_json::from_slice(&output.stdout)?)
    }

    fn from(metadata: &Value) -> Result<Self> {
        let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
        let names: BTreeMap<String, String> = array(metadata, "/packages")?
            .iter()
            .filter_map(|package| Some((text(package, "id")?, text(package, "name")?)))
            .collect();
        let mut graph = Self { members: BTreeSet::new(), uses: BTreeMap::new(), builds_on: BTreeMap::new() };
        for id in array(metadata, "/workspace_members")?.iter().filter_map(Value::as_str) {
            let name = names.get(id).context("members are packages")?;
            let known = MAY_USE.iter().find(|(known, _)| known == name);
            graph.members.insert(known.map(|(known, _)| *known).with_context(|| format!("{name} is not in the list"))?);
        }
        for node in array(metadata, "/resolve/nodes")? {
            let name = text(node, "id").and_then(|id| names.get(&id).cloned()).context("nodes are packages")?;
            for used in array(node, "/deps")? {
                let other = text(used, "pkg").and_then(|id| names.get(&id).cloned()).context("nodes use packages")?;
                let only_tests =
                    array(used, "/dep_kinds")?.iter().all(|kind| kind.get("kind").is_some_and(|kind| kind == "dev"));
                if !only_tests {
                    graph.builds_on.entry(name.clone()).or_default().insert(other.clone());
                }
                graph.uses.entry(name.clone()).or_default().insert(other);
            }
        }
        Ok(graph)
    }

    /// Everything that a package is built on, however far below.
    fn below(&self, name: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut waiting = vec![name.to_owned()];
        while let Some(next) = waiting.pop() {
            for used in self.builds_on.get(&next).into_iter().flatten() {
                if found.insert(used.clone()) {
                    waiting.push(used.clone());
                }
            }
        }
        found
    }
}

fn array<'v>(value: &'v Value, path: &str) -> Result<&'v Vec<Value>> {
    value.pointer(path).and_then(Value::as_array).with_context(|| format!("cargo metadata has {path}"))
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn has_ending(path: &Path, ending: &str) -> bool {
    path.extension().is_some_and(|own| own == ending)
}

fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() { files.extend(files_below(&path)?) } else { files.push(path) }
    }
    files.sort();
    Ok(files)
}

/// Policies, or a host file; both say what is wrong where.
fn accepted(name: &str, text: &str) -> Result<()> {
    let source = Source { name, text };
    if text.lines().any(|line| line.starts_with("host:")) {
        nothing_found(parse_host(&source).err())
    } else {
        all_accepted(&[source])
    }
}

fn all_accepted(sources: &[Source<'_>]) -> Result<()> {
    nothing_found(parse(sources).err())
}

fn nothing_found(findings: Option<Vec<Finding>>) -> Result<()> {
    let shown: Vec<String> = findings.iter().flatten().map(ToString::to_string).collect();
    ensure!(shown.is_empty(), "{}", shown.join("\n"));
    Ok(())
}

/// The YAML blocks of a page, with the number of lines above each.
fn yaml_blocks(page: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut block: Option<(usize, String)> = None;
    for (number, line) in page.lines().enumerate() {
        match (&mut block, line.trim_end()) {
            (None, "```yaml") => block = Some((number + 1, String::new())),
            (Some(_), "```") => blocks.extend(block.take()),
            (Some((_, text)), _) => text.extend([line, "\n"]),
            (None, _) => {}
        }
    }
    blocks
}

/// The items of lists, each with its continuation lines.
fn items(page: &str) -> Vec<String> {
    let mut items: Vec<String> = Vec::new();
    let mut open = false;
    for line in page.lines() {
        match items.last_mut() {
            Some(item) if open && line.starts_with("  ") => item.extend([" ", line.trim()]),
            _ => {
                open = line.starts_with("- ");
                items.extend(open.then(|| line.to_owned()));
            }
        }
    }
    items
}

/// What stands between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The rules and promises after the word "break" or "breaks".
fn breaks_named(text: &str) -> impl Iterator<Item = &str> {
    let named = text.trim_start().strip_prefix("break").unwrap_or_default().trim_start_matches('s');
    let rules = named.split("found by").next().unwrap_or_default().split([' ', ',']);
    rules
        .filter(|word| word.strip_prefix(['R', 'S']).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit())))
}

/// Checks an item such as: `policies/src/proof.rs` `power_off`, `operator`; `other.rs` `name`. Returns how many it names.
fn code_exists(places: &str) -> Result<usize> {
    let mut file: Option<(&str, String)> = None;
    let mut count = 0;
    for word in quoted(places) {
        if word.contains('/') {
            let text = fs::read_to_string(top().join(word)).with_context(|| format!("docs/SAFETY.md names {word}"))?;
            file = Some((word, text));
            continue;
        }
        let (path, text) = file.as_ref().with_context(|| format!("docs/SAFETY.md names {word} without its file"))?;
        let own = ["fn", "struct", "enum", "const", "trait"].map(|kind| format!("{kind} {word}"));
        let declared = |line: &str| {
            own.iter().any(|own| line.split_once(own.as_str()).is_some_and(|(_, rest)| !rest.starts_with(is_of_a_name)))
        };
        ensure!(text.lines().any(declared), "docs/SAFETY.md names {word}, which is not in {path}");
        count += 1;
    }
    Ok(count)
}

fn is_of_a_name(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// The name of every test function of the workspace.
fn all_tests() -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for package in ["policies", "probes", "fencing", "supervisor", "tests"] {
        for file in files_below(&top().join(package))?.iter().filter(|file| has_ending(file, "rs")) {
            let text = fs::read_to_string(file)?;
            let mut is_test = false;
            for line in text.lines().map(str::trim) {
                is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
                if let Some((_, rest)) = line.split_once("fn ").filter(|_| is_test && !line.starts_with("//")) {
                    names.insert(rest.chars().take_while(|character| is_of_a_name(*character)).collect());
                    is_test = false;
                }
            }
        }
    }
    Ok(names)
}
