//! No test is left out by how packages say what their programs are made of.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

/// The packages that have programs.
const PACKAGES: [&str; 3] = ["probes", "supervisor", "tests"];

#[test]
fn every_file_with_tests_is_part_of_one_test_program() -> Result<()> {
    let manifest = read("tests/Cargo.toml")?;
    let listed = manifest.lines().filter_map(|line| line.strip_prefix("path = \"tests/")?.strip_suffix(".rs\""));
    let programs: Vec<String> = listed.map(str::to_owned).collect();
    ensure!(!programs.is_empty(), "tests/Cargo.toml lists no test programs");
    let mut parts = programs.clone();
    for program in &programs {
        let text = read(&format!("tests/tests/{program}.rs"))?;
        parts.extend(text.lines().filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';').map(str::to_owned)));
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(top().join("tests/tests"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        files.extend(name.strip_suffix(".rs").map(str::to_owned));
    }
    parts.sort();
    files.sort();
    ensure!(parts == files, "the test programs are made of {parts:?}, and the files are {files:?}");
    Ok(())
}

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

fn read(name: &str) -> Result<String> {
    let path = top().join(name);
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
