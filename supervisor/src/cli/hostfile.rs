//! Loads the host file, with its relative paths counted from its folder.

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    string::FromUtf8Error,
};

use holdfast_policies::{
    hostfile::HostFile,
    yaml::{self, Finding, INPUT_BYTES_MAX, Source},
};

/// Why a host file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HostFileError {
    /// It cannot be read.
    #[error("cannot read {path}", path = path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It has mistakes; all of them.
    #[error("the host file has mistakes:\n{}", shown(.0))]
    Findings(Vec<Finding>),
}

fn shown(findings: &[Finding]) -> String {
    findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Loads a host file. All its paths are absolute afterwards, but for a program that is to be found in PATH.
///
/// # Errors
/// [`HostFileError`]
pub fn load_host_file(path: &Path) -> Result<HostFile, HostFileError> {
    let fail = |source| HostFileError::Read { path: path.to_owned(), source };
    let text = read_bounded(path).map_err(fail)?;
    let name = path.to_string_lossy();
    let mut host = yaml::parse_host(&Source { name: &name, text: &text }).map_err(HostFileError::Findings)?;
    let absolute = std::path::absolute(path).map_err(fail)?;
    resolve(&mut host, absolute.parent().unwrap_or(Path::new("/")));
    Ok(host)
}

fn resolve(host: &mut HostFile, folder: &Path) {
    let binary = &mut host.qemu.binary;
    // One word is a program's name, to be found in PATH.
    let named = binary.components().count() == 1;
    let own = [&mut host.state_dir, &mut host.run_dir, &mut host.tls.ca, &mut host.tls.certificate, &mut host.tls.key];
    let optional = host.qemu.log_dir.iter_mut().chain(&mut host.qemu.cgroup);
    for path in own.into_iter().chain(&mut host.gossip_keys).chain(optional).chain((!named).then_some(binary)) {
        // Joining an absolute path gives that path.
        *path = folder.join(&*path);
    }
}

/// A file's text, of which no more is read than the parser would take; it says so when there is more.
pub(super) fn read_bounded(path: &Path) -> io::Result<String> {
    let limit = u64::try_from(INPUT_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    String::from_utf8(bytes).or_else(|error| match error.utf8_error().error_len() {
        // The limit has cut a character in two; the parser says that the file is too large.
        None if error.as_bytes().len() > INPUT_BYTES_MAX => Ok(String::from_utf8_lossy(error.as_bytes()).into_owned()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, no_utf8(&error))),
    })
}

/// Where a text ceases to be UTF-8.
fn no_utf8(error: &FromUtf8Error) -> String {
    let good = error.utf8_error().valid_up_to();
    let before = String::from_utf8_lossy(error.as_bytes().get(..good).unwrap_or_default());
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("it is not text in UTF-8 from line {line}, column {column} on; save it as UTF-8")
}
