//! `holdfast completions`: what bash offers for each word, made from the arguments themselves, so that it forgets none.

use clap::{Command, CommandFactory as _};

use super::{arguments::Arguments, outcome::Reply};

/// What comes before the commands: `path` is the command so far, of the words before the one that is completed.
const BEGIN: &str = "\
# What bash offers after `holdfast`, as /usr/share/bash-completion/completions/holdfast.
_holdfast() {
  local path=holdfast words= index
  for ((index = 1; index < COMP_CWORD; index++)); do
    case \"$path ${COMP_WORDS[index]}\" in
";

/// What ends it. Where nothing fits, bash offers files.
const END: &str = "\
  esac
  COMPREPLY=($(compgen -W \"$words\" -- \"${COMP_WORDS[COMP_CWORD]}\"))
}
complete -o bashdefault -o default -F _holdfast holdfast
";

/// The script.
pub(super) fn bash() -> Reply {
    let mut holdfast = Arguments::command();
    // Only then every command has the options that all have.
    holdfast.build();
    let mut commands = Vec::new();
    collect(&holdfast, "holdfast", &mut commands);
    let paths: Vec<String> = commands.iter().skip(1).map(|(path, _)| format!("\"{path}\"")).collect();
    let paths = format!("      {}) path+=\" ${{COMP_WORDS[index]}}\" ;;\n    esac\n  done\n", paths.join(" | "));
    let offers = commands.iter().map(|(path, words)| format!("    \"{path}\") words=\"{}\" ;;\n", words.join(" ")));
    let offers: String = offers.collect();
    Reply::text(format!("{BEGIN}{paths}  case $path in\n{offers}{END}"))
}

/// A command and those below it, each with what may follow it.
fn collect(command: &Command, path: &str, commands: &mut Vec<(String, Vec<String>)>) {
    let below = || command.get_subcommands().filter(|below| below.get_name() != "help");
    let options = command.get_arguments().filter_map(|argument| Some(format!("--{}", argument.get_long()?)));
    let words = below().map(|below| below.get_name().to_owned()).chain(options).collect();
    commands.push((path.to_owned(), words));
    below().for_each(|below| collect(below, &format!("{path} {}", below.get_name()), commands));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What bash offers for the last of these words.
    fn offered(words: &[&str]) -> Vec<String> {
        let script =
            "eval \"$1\"; shift; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); _holdfast; echo \"${COMPREPLY[*]}\"";
        let mut command = std::process::Command::new("bash");
        let output = command.args(["-c", script, "bash", &bash().text]).args(words).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn bash_offers_commands_and_their_options_also_behind_those_that_all_have() {
        assert_eq!(offered(&["holdfast", "stat"]), ["status"]);
        assert_eq!(offered(&["holdfast", "guest", "m"]), ["migrate", "manage"]);
        assert_eq!(offered(&["holdfast", "--json", "host", "confirm-off", "hv-a", "--op"]), ["--operator"]);
        assert_eq!(offered(&["holdfast", "fence", "drill", "hv-a", "--l"]), ["--level"]);
        assert_eq!(offered(&["holdfast", "voter", "list", "--conf"]), ["--config"]);
        assert!(offered(&["holdfast", "apply", "pol"]).is_empty(), "files are bash's own");
    }
}
