//! Finds and opens the identity file of whoever runs a command, if they have one.

use std::{
    env,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use holdfast_policies::{
    hostfile::IdentityFile,
    yaml::{self, Source},
};

use super::{super::identity::Identity, hostfile::read_bounded, outcome::Failure, sources::unreadable};
use crate::causes::with_causes;

/// Names an identity file; empty, it says that none is to be used.
const VARIABLE: &str = "HOLDFAST_IDENTITY";

/// Where an identity file lies below the folder for settings, of whoever has but one.
const DEFAULT: &str = "holdfast/identity.yaml";

/// The identity to speak with; `None`: this host's supervisor is asked, and vouches.
pub(super) fn find(given: Option<PathBuf>) -> Result<Option<Identity>, Failure> {
    let settings = env::var_os("XDG_CONFIG_HOME").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let settings = settings.or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".config")));
    choose(given, env::var_os(VARIABLE), settings.as_deref())?.map(|path| open(&path)).transpose()
}

/// What is named on the command line, else in the environment, else what lies at its usual place.
fn choose(
    given: Option<PathBuf>,
    variable: Option<OsString>,
    settings: Option<&Path>,
) -> Result<Option<PathBuf>, Failure> {
    if given.is_some() {
        return Ok(given);
    }
    if let Some(named) = variable {
        return Ok(Some(named).filter(|named| !named.is_empty()).map(PathBuf::from));
    }
    let Some(usual) = settings.map(|folder| folder.join(DEFAULT)) else { return Ok(None) };
    match fs::symlink_metadata(&usual) {
        Ok(_) => Ok(Some(usual)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        // One that is there and cannot be read must not be passed over: another would vouch.
        Err(error) => Err(unreadable(&usual, &error)),
    }
}

fn open(path: &Path) -> Result<Identity, Failure> {
    Identity::open(load(path)?)
        .map_err(|error| Failure::Failed(format!("cannot use {}: {}", path.display(), with_causes(&error))))
}

/// An identity file with its paths absolute.
pub(super) fn load(path: &Path) -> Result<IdentityFile, Failure> {
    let text = read_bounded(path).map_err(|error| unreadable(path, &error))?;
    let name = path.to_string_lossy();
    let mut file = yaml::parse_identity(&Source { name: &name, text: &text }).map_err(Failure::Findings)?;
    let absolute = std::path::absolute(path).map_err(|error| unreadable(path, &error))?;
    let folder = absolute.parent().unwrap_or(Path::new("/"));
    for path in [&mut file.tls.ca, &mut file.tls.certificate, &mut file.tls.key] {
        // Joining an absolute path gives that path.
        *path = folder.join(&*path);
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_what_is_named_and_only_else_what_lies_at_its_usual_place() {
        let folder = tempfile::tempdir().unwrap();
        let usual = folder.path().join(DEFAULT);
        let settings = Some(folder.path());
        let (given, named) = (|| Some(PathBuf::from("given")), || Some(OsString::from("named")));
        assert_eq!(choose(None, None, settings).unwrap(), None);
        fs::create_dir_all(usual.parent().unwrap()).unwrap();
        assert_eq!(choose(None, None, settings).unwrap(), None);
        fs::write(&usual, "").unwrap();
        assert_eq!(choose(None, None, settings).unwrap(), Some(usual));
        assert_eq!(choose(None, None, None).unwrap(), None);
        assert_eq!(choose(None, named(), settings).unwrap(), Some("named".into()));
        assert_eq!(choose(None, Some(OsString::new()), settings).unwrap(), None);
        assert_eq!(choose(given(), named(), settings).unwrap(), given());
    }
}
