//! No test is left out by how packages say what their programs are made of.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};

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

fn read(name: &str) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}
