//! `holdfast policies`: the files that are in force, as they were applied.

use std::{collections::BTreeMap, fs, io, path::Path};

use serde_json::json;

use super::{
    super::desk::{Answer, Request},
    call::{Asked, runtime},
    key_folder::{make_folder, write_new},
    outcome::{Failure, Reply},
};

/// Policies hold no secrets.
const FILE_MODE: u32 = 0o644;

/// Shows the files, or writes them into a folder.
pub(super) fn show(asked: Asked<'_>, out: Option<&Path>) -> Result<Reply, Failure> {
    let (version, sources) = match runtime()?.block_on(asked.answer(Request::Policies))? {
        Answer::Policies { version, sources } => (version, sources),
        other => return Err(Failure::Failed(format!("those are no policies: {}", other.content()))),
    };
    let json = json!({ "version": version, "files": sources });
    let text = match out {
        Some(folder) => write(version, &sources, folder)?,
        None if sources.is_empty() => "No policies are in force: `holdfast apply DIR`.\n".to_owned(),
        None => as_one(version, &sources),
    };
    Ok(Reply { text, json, code: 0 })
}

/// All files as one that could be applied: a document each, below a comment that names it, with the ends of lines that terminals want.
fn as_one(version: u64, sources: &BTreeMap<String, String>) -> String {
    let document = |(name, text): (&String, &String)| {
        let text = text.trim_start_matches('\u{feff}').replace("\r\n", "\n");
        let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        format!("# {name}, in version {version} of the policies\n{text}{end}")
    };
    sources.iter().map(document).collect::<Vec<_>>().join("---\n")
}

fn write(version: u64, sources: &BTreeMap<String, String>, folder: &Path) -> Result<String, Failure> {
    // Who applied them chose the names: none is to lead anywhere else.
    if let Some(name) = sources.keys().find(|name| Path::new(name).file_name().is_none_or(|own| own != name.as_str())) {
        return Err(Failure::Failed(format!("{name:?} is no name of a file; without --out it is shown all the same")));
    }
    if fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Failure::Failed(format!("{} is not empty; name a folder of its own", folder.display())));
    }
    let fail = |error: io::Error| Failure::Failed(format!("cannot write {}: {error}", folder.display()));
    make_folder(folder).map_err(fail)?;
    for (name, text) in sources {
        write_new(&folder.join(name), text, FILE_MODE).map_err(fail)?;
    }
    Ok(format!("wrote version {version} of the policies, {} files, to {}\n", sources.len(), folder.display()))
}

#[cfg(test)]
mod tests {
    use holdfast_policies::yaml::{Source, parse};

    use super::*;

    fn sources(files: &[(&str, &str)]) -> BTreeMap<String, String> {
        files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn what_is_shown_could_be_applied() {
        let guest = |name: &str| format!("guests:\n  {name}: {{ qemu: {{ memory: 1GiB, kernel: /k }} }}");
        let (one, two) = (guest("db-1"), format!("\u{feff}{}\r\n", guest("web-1").replace('\n', "\r\n")));
        let shown = as_one(3, &sources(&[("db.yaml", &one), ("web.yaml", &two)]));
        assert!(shown.starts_with("# db.yaml, in version 3 of the policies\nguests:\n"), "{shown}");
        assert!(!shown.contains(['\r', '\u{feff}']), "{shown:?}");
        let read = parse(&[Source { name: "all", text: &shown }]).unwrap();
        assert_eq!(read.guests.len(), 2, "{shown}");
    }

    #[test]
    fn files_are_written_into_an_empty_folder_and_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("policies");
        let files = sources(&[("db.yaml", "guests: {}\n"), ("web.yaml", "policies: {}\n")]);
        write(3, &files, &out).unwrap();
        assert_eq!(fs::read_to_string(out.join("web.yaml")).unwrap(), "policies: {}\n");
        assert!(matches!(write(3, &files, &out), Err(Failure::Failed(why)) if why.contains("not empty")));
        for name in ["../web.yaml", "a/web.yaml", "..", "", "/etc/passwd"] {
            let other = folder.path().join("other");
            assert!(write(3, &sources(&[(name, "guests: {}\n")]), &other).is_err(), "{name}");
            assert!(!other.exists(), "{name}");
        }
    }
}
