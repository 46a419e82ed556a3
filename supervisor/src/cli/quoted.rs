//! Every command that a text of ours tells a person to run exists, as it is written there.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::{CommandFactory as _, Parser as _, error::ErrorKind};

use super::arguments::Arguments;

/// Texts that tell people what to run, from the root of the repository.
const TEXTS: [&str; 6] = ["policies/src", "supervisor/src", "docs", "README.md", "CHANGELOG.md", "examples"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn texts(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| texts(&entry.unwrap().path(), found));
    } else if path.ends_with("cli/quoted.rs") {
        // Its examples of what is wrong are none of our texts.
    } else if path.extension().is_some_and(|ending| ["rs", "md", "yaml"].contains(&ending.to_str().unwrap())) {
        found.push(path.to_owned());
    }
}

/// The text of a file with its line breaks inside quotes undone: a Rust string goes on after `\`, Markdown anywhere.
fn joined(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(|line| line.trim().trim_start_matches("//").trim_start()).collect();
    lines.join(" ").replace("\\ ", " ")
}

/// What stands between backticks and begins with the name of the program, and the lines of shell in Markdown.
fn quoted(text: &str) -> Vec<String> {
    let inline = joined(&text.replace("```", ""));
    let mut found: Vec<String> =
        inline.split('`').filter(|part| part.starts_with("holdfast ")).map(str::to_owned).collect();
    let shell = text.lines().map(str::trim).filter(|line| line.starts_with("holdfast "));
    found.extend(shell.map(|line| line.split('#').next().unwrap_or_default().trim().to_owned()));
    found
}

/// The words of a command line. Placeholders (`{host}`, `HOST`, `DIR`) are arguments like others; a name in quotes is one.
fn words(command: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut inside = false;
    for c in command.chars() {
        match c {
            '"' => inside = !inside,
            ' ' if !inside => words.push(String::new()),
            c => words.last_mut().unwrap().extend(match c {
                '{' | '}' => None,
                c => Some(c),
            }),
        }
    }
    words.retain(|word| !word.is_empty());
    // `{}` and `{name}` alike stand for something.
    let placeholder = command.contains("{}").then(|| "placeholder".to_owned());
    words.into_iter().chain(placeholder).collect()
}

/// What is wrong with a command, if anything is. A text may name a command and say nothing of what it is done to; one that
/// says what it is done to is copied as it stands, and has to say all.
fn complaint(command: &str) -> Option<String> {
    match Arguments::try_parse_from(words(command)) {
        Ok(_) => None,
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => None,
            // What a placeholder stands for is not known here.
            ErrorKind::ValueValidation if command.contains('{') => None,
            ErrorKind::MissingRequiredArgument
            | ErrorKind::MissingSubcommand
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
                if is_mere_name(command) =>
            {
                None
            }
            _ => Some(format!("`{command}`: {error}")),
        },
    }
}

/// Whether these words are the name of a command alone, such as `holdfast host drain`.
fn is_mere_name(command: &str) -> bool {
    let mut known = Arguments::command();
    for word in words(command).iter().skip(1) {
        let Some(next) = known.find_subcommand(word).cloned() else { return false };
        known = next;
    }
    true
}

#[test]
fn every_command_that_a_text_tells_people_to_run_exists() {
    let mut files = Vec::new();
    TEXTS.iter().for_each(|path| texts(&root().join(path), &mut files));
    let commands: Vec<(PathBuf, String)> = files
        .into_iter()
        .flat_map(|file| {
            let text = fs::read_to_string(&file).unwrap();
            quoted(&text).into_iter().map(move |command| (file.clone(), command))
        })
        .collect();
    assert!(commands.len() > 40, "only {} commands were found: {commands:#?}", commands.len());
    let wrong: Vec<String> = commands
        .iter()
        .filter_map(|(file, command)| Some(format!("{}: {}", file.display(), complaint(command)?)))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_command_that_does_not_exist_is_seen() {
    for wrong in [
        "holdfast host maintains hv-b",
        "holdfast host drain hv-b --now",
        "holdfast host confirm-off hv-b",
        "holdfast explode",
        "holdfast status now",
    ] {
        assert!(complaint(wrong).is_some(), "{wrong}");
    }
    for right in [
        "holdfast host drain {host}",
        "holdfast host confirm-off",
        "holdfast host confirm-off hv-b --operator YOUR-NAME",
        "holdfast host readmit {host} --serial {serial} --operator YOUR-NAME",
        "holdfast explain {}",
        "holdfast guest migrate",
        "holdfast status --json",
    ] {
        assert_eq!(complaint(right), None, "{right}");
    }
    let text = "// run `holdfast host \\\n    // drain HOST` there\n```sh\nholdfast status   # all\n```\n";
    assert_eq!(quoted(text), ["holdfast host  drain HOST", "holdfast status"]);
}
