//! Reads a guest's `cpu`: which processor it sees, as QEMU's `-cpu` takes it.

use super::{text::quoted, value::Value};

/// Longest one, in bytes: a model with some dozens of flags.
const CPU_BYTES_MAX: usize = 512;

/// How one is written.
const EXAMPLE: &str = "write a model that `qemu-system-x86_64 -cpu help` lists, such as `Westmere`, and its flags after it: \
                       `\"Skylake-Server,-avx512f\"`";

/// Reads one. Which models and flags there are each version of QEMU knows for itself; what is looked at here is that it can be
/// nothing else.
pub(super) fn read(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return value.wrong(
            format!("processor {} is a number", quoted(text)),
            "name a model here; how many of them the guest has is said by `cpus`",
        );
    }
    if text.len() > CPU_BYTES_MAX {
        return value
            .wrong(format!("`cpu` is longer than {CPU_BYTES_MAX} bytes"), "leave out flags that the model has");
    }
    let mut parts = text.split(',');
    if !parts.next().is_some_and(is_model) || !parts.all(is_flag) {
        return value.wrong(format!("{} is not a processor of QEMU's", quoted(text)), EXAMPLE);
    }
    Some(text.to_owned())
}

fn is_model(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_alphanumeric()) && word.bytes().all(is_of_name)
}

/// `+aes`, `-avx512f`, `pcid=off`, `enforce`.
fn is_flag(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|b| is_of_name(b) || matches!(b, b'+' | b'='))
}

fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

#[cfg(test)]
mod tests {
    use crate::yaml::{Source, parse};

    /// Reads a guest with this below its `qemu`: its processor, or the only mistake as it is shown.
    fn read(settings: &str) -> Result<Option<String>, String> {
        let text = format!(
            "guests:\n  g:\n    qemu:\n      memory: 1GiB\n      disks: [{{ path: /d.img }}]\n      {settings}\n"
        );
        match parse(&[Source { name: "a.yaml", text: &text }]) {
            Ok(policies) => Ok(policies.guests.values().next().unwrap().qemu.cpu.clone()),
            Err(found) => {
                assert_eq!(found.len(), 1, "{found:?}");
                Err(found[0].to_string())
            }
        }
    }

    #[test]
    fn a_processor_is_a_model_with_flags_and_all_that_its_host_can_do_where_none_is_named() {
        let named = |name: &str| Ok(Some(name.to_owned()));
        for name in ["Westmere", "host", "qemu64", "x86-64-v2-AES", "EPYC-v3", "486-v1", "host,migratable=off"] {
            assert_eq!(read(&format!("cpu: {name}")), named(name));
        }
        let flags = "Skylake-Server,-avx512f,+sse4.1,pcid=off,enforce";
        assert_eq!(read(&format!("cpu: {flags}")), named(flags));
        assert_eq!(read(&format!("cpu: \"{flags}\"")), named(flags));
        for default in ["cpu: max", "cpus: 2"] {
            assert_eq!(read(default), Ok(None), "{default}");
        }
    }

    #[test]
    fn what_can_be_no_processor_is_shown_where_it_stands_with_what_would_be_right() {
        let model = "hint: write a model that `qemu-system-x86_64 -cpu help` lists";
        let long = format!("Westmere{}", ",+aes".repeat(101));
        for (wrong, what, hint) in [
            ("Skylake Server", "`Skylake Server` is not a processor of QEMU's", model),
            ("-avx512f", "`-avx512f` is not a processor of QEMU's", model),
            ("Westmere=on", "`Westmere=on` is not a processor of QEMU's", model),
            ("Westmere,", "`Westmere,` is not a processor of QEMU's", model),
            ("Westmere,,+aes", "`Westmere,,+aes` is not a processor of QEMU's", model),
            ("Westmere;reboot", "`Westmere;reboot` is not a processor of QEMU's", model),
            ("host,model-id=\"x\"", "is not a processor of QEMU's", model),
            ("Prozessör", "`Prozessör` is not a processor of QEMU's", model),
            (long.as_str(), "`cpu` is longer than 512 bytes", "hint: leave out flags"),
            ("2", "processor `2` is a number", "is said by `cpus`"),
            ("[host]", "`cpu` must be text", "hint: write a single value here"),
            ("", "`cpu` must be text, not nothing", "hint: give a value"),
        ] {
            let told = read(&format!("cpu: {wrong}")).unwrap_err();
            assert!(told.starts_with("a.yaml:6:") && told.contains(what) && told.contains(hint), "{wrong}: {told}");
        }
    }

    #[test]
    fn the_hosts_own_processor_is_not_emulated() {
        let told = read("cpu: host,-pcid\n      accel: tcg").unwrap_err();
        assert!(told.starts_with("a.yaml:6:") && told.contains("`cpu: host` needs KVM"), "{told}");
        assert_eq!(read("cpu: host\n      accel: kvm"), Ok(Some("host".to_owned())));
    }
}
