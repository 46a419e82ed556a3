//! Collects the files of `apply` and `check`: files as given, and the `*.yaml` of folders.

use std::{
    collections::BTreeMap,
    fs::{self, DirEntry},
    path::{Path, PathBuf},
};

use holdfast_policies::yaml::{INPUT_BYTES_MAX, Source};

use super::{hostfile::read_bounded, outcome::Failure};

/// Most folders in a folder that are looked at. Who has more keeps something else there.
const FOLDERS_MAX: usize = 1_000;

/// One file.
#[derive(Debug)]
pub(super) struct SourceFile {
    /// As people find it.
    pub(super) path: String,
    /// Its text.
    pub(super) text: String,
}

impl SourceFile {
    /// For the parser.
    pub(super) fn source(&self) -> Source<'_> {
        Source { name: &self.path, text: &self.text }
    }

    /// Whether nothing is said in it at all: comments and markers of documents at most.
    pub(super) fn is_blank(&self) -> bool {
        let says_nothing = |line: &str| line.is_empty() || line.starts_with('#') || ["---", "..."].contains(&line);
        self.text.lines().map(str::trim).all(says_nothing)
    }
}

/// Reads files, and the `*.yaml` files of folders in the order of their names.
pub(super) fn collect(given: &[PathBuf]) -> Result<Vec<SourceFile>, Failure> {
    let mut files = Vec::new();
    let mut bytes = 0_usize;
    for path in given {
        for path in if path.is_dir() { folder(path, given)? } else { vec![path.clone()] } {
            let text = read_bounded(&path).map_err(|error| unreadable(&path, &error))?;
            bytes = bytes.saturating_add(text.len());
            files.push(SourceFile { path: path.display().to_string(), text });
            // The parser refuses it too, and says why; more need not be read for that.
            if bytes > INPUT_BYTES_MAX {
                return Ok(files);
            }
        }
    }
    Ok(files)
}

fn folder(path: &Path, given: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let fail = |error| unreadable(path, &error);
    let entries = fs::read_dir(path).map_err(fail)?.collect::<Result<Vec<_>, _>>().map_err(fail)?;
    let mut paths: Vec<PathBuf> =
        entries.into_iter().map(|entry| entry.path()).filter(|path| !is_hidden(path)).collect();
    paths.sort();
    // Left out in silence it would take its guests out of Holdfast's care.
    if let Some(path) = left_out(paths.iter().rev().filter(|path| path.is_dir()).cloned().collect(), given) {
        let path = path.display();
        return Err(Failure::Failed(format!(
            "{path} would not be read: folders in a folder are not; name it as well, or move it away"
        )));
    }
    paths.retain(|path| path.is_file());
    if let Some(path) = paths.iter().find(|path| is_misnamed(path)) {
        let path = path.display();
        return Err(Failure::Failed(format!(
            "{path} would not be read: only files called *.yaml are; rename it, or move it away"
        )));
    }
    let files: Vec<PathBuf> = paths.into_iter().filter(|path| has_ending(path, "yaml")).collect();
    // An empty folder is a mistyped one: taken at its word it would take all guests out of Holdfast's care.
    if files.is_empty() {
        return Err(Failure::Failed(format!("there is no *.yaml file in {}", path.display())));
    }
    Ok(files)
}

/// Hidden files are an editor's, and not meant.
fn is_hidden(path: &Path) -> bool {
    path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// The first of these folders, or of those in them, in which policies lie by the names of its files, and which nobody has named. The last
/// one is looked at first, and no link in one is followed.
fn left_out(mut unseen: Vec<PathBuf>, given: &[PathBuf]) -> Option<PathBuf> {
    for _ in 0..FOLDERS_MAX {
        let folder = unseen.pop()?;
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        let entries: Vec<DirEntry> = entries.filter(|entry| !is_hidden(&entry.path())).collect();
        if entries.iter().any(|entry| is_policy(&entry.path())) && !given.iter().any(|named| are_one(named, &folder)) {
            return Some(folder);
        }
        let is_folder = |entry: &&DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
        unseen.extend(entries.iter().filter(is_folder).map(DirEntry::path));
    }
    None
}

fn is_policy(path: &Path) -> bool {
    path.is_file() && (has_ending(path, "yaml") || is_misnamed(path))
}

fn are_one(one: &Path, other: &Path) -> bool {
    matches!((fs::canonicalize(one), fs::canonicalize(other)), (Ok(one), Ok(other)) if one == other)
}

/// Whether a file's name says that it is YAML, and not in the one way that is read.
fn is_misnamed(path: &Path) -> bool {
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
    ending.is_some_and(|ending| ["yaml", "yml"].contains(&ending.as_str())) && !has_ending(path, "yaml")
}

fn has_ending(path: &Path, wanted: &str) -> bool {
    path.extension().is_some_and(|ending| ending == wanted)
}

/// Refuses files in which nothing is said at all, such as one that was cut to nothing: taken at their word they would take all guests
/// out of Holdfast's care, as an empty folder would.
pub(super) fn not_blank(files: &[SourceFile]) -> Result<(), Failure> {
    if !files.iter().all(SourceFile::is_blank) {
        return Ok(());
    }
    let names: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
    Err(Failure::Failed(format!(
        "nothing is declared in {}; if no guest is to be looked after any more, say so: `guests: {{}}`",
        names.join(", ")
    )))
}

/// Says which file or folder cannot be read, and why.
pub(super) fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Failed(format!("cannot read {}: {error}", path.display()))
}

/// The texts by file name, as they are kept in the cluster.
pub(super) fn by_name(files: Vec<SourceFile>) -> Result<BTreeMap<String, String>, Failure> {
    let mut sources = BTreeMap::new();
    for file in files {
        let name =
            Path::new(&file.path).file_name().map_or(file.path.clone(), |name| name.to_string_lossy().into_owned());
        if sources.insert(name.clone(), file.text).is_some() {
            return Err(Failure::Failed(format!("two files are called {name}; policies are kept by file name")));
        }
    }
    Ok(sources)
}
