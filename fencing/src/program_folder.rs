//! A folder for programs that tests have devices run: they obey fault files in it, and log every off.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
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

    /// A file that can be run. A process of its own writes it: whatever another test starts at this moment holds for a moment
    /// what this process writes to, and what somebody holds for writing is not run ("text file busy").
    pub(crate) fn program(&self, name: &str, script: &str) {
        let text = format!("{name}.text");
        self.write(&text, script);
        let made =
            Command::new("install").args(["-m", "755"]).args([self.path(&text), self.path(name)]).status().unwrap();
        assert!(made.success(), "install of {name}: {made}");
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
