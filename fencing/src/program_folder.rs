//! A folder for programs that tests have devices run: they obey fault files in it, and log every off.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

/// Such a folder; it is removed when dropped.
pub(crate) struct ProgramFolder(TempDir);

impl ProgramFolder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn dir(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap();
    }

    /// A file that can be run.
    pub(crate) fn program(&self, name: &str, script: &str) {
        self.write(name, script);
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// What a file holds that has to be there.
    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// How often a program has said that it switches off: the lines of its log, which is there from the first on.
    pub(crate) fn offs(&self) -> u32 {
        fs::read_to_string(self.path("log")).unwrap_or_default().lines().count().try_into().unwrap()
    }
}
