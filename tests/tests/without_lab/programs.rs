//! No test is left out by how packages say what their programs are made of.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use super::read;

/// The packages that have programs.
const PACKAGES: [&str; 3] = ["probes", "supervisor", "tests"];

#[test]
fn programs_that_are_built_without_tests_have_none() -> Result<()> {
    let mut count = 0;
    for package in PACKAGES {
        let manifest = read(&format!("{package}/Cargo.toml"))?;
        for program in manifest.split("\n[[bin]]\n").skip(1).filter_map(|rest| rest.split("\n[").next()) {
            if !program.contains("\ntest = false") {
                continue;
            }
            let path = program.split_once("path = \"").and_then(|(_, rest)| rest.split('"').next());
            let path = format!("{package}/{}", path.with_context(|| format!("{package}: a program without a path"))?);
            // A file of its own could hold some, too.
            for line in read(&path)?.lines().map(str::trim) {
                let begins = |word: &str| line.starts_with(word);
                let is_test = begins("#[test]") || begins("#[tokio::test") || begins("mod ") || begins("#[cfg(test)]");
                ensure!(!is_test, "{path} is built without tests, and has {line:?}");
            }
            count += 1;
        }
    }
    ensure!(count > 0, "every program is built with tests");
    Ok(())
}

/// What stands in a folder is one program, and whatever its `main.rs` does not name is in none.
#[test]
fn every_file_of_a_test_program_that_has_several_is_part_of_it() -> Result<()> {
    let mut count = 0;
    let programs = entries(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests"))?;
    for folder in programs.iter().filter(|path| path.is_dir()) {
        let main = folder.join("main.rs");
        let main = fs::read_to_string(&main).with_context(|| format!("cannot read {}", main.display()))?;
        let parts: Vec<&str> = main.lines().filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';')).collect();
        for file in entries(folder)? {
            let name = file.file_stem().and_then(|name| name.to_str()).context("names are text")?;
            ensure!(name == "main" || parts.contains(&name), "{} is in no program", file.display());
            count += 1;
        }
    }
    ensure!(count > 0, "no program has several files");
    Ok(())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        entries.push(entry?.path());
    }
    Ok(entries)
}
