//! Whether what operators declare can be: it is read, compared with what is in force, and measured.

use std::collections::BTreeMap;

use holdfast_policies::{feature_level::FeatureLevel, model::Policies};

use crate::{
    consensus::ENTRY_BYTES_MAX,
    desk::{Denied, plan},
    packed::pack,
};

/// Room in an entry for what stands around policies and their files: when, by whom, on which version.
const AROUND_BYTES: usize = 4 * 1024;

/// Most bytes of JSON that are declared at once, before they are packed: some 16,000 guests with their files. It is what every voter
/// reads to apply the entry, and what its snapshots hold.
const DECLARED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Largest entry while a voter may be of an earlier version: it proposes and sends on none that is longer (R26).
const ENTRY_BYTES_BEFORE: usize = 1024 * 1024;

/// The policies, one line per change, and the files that they were read from.
pub(super) struct Planned {
    pub(super) policies: Policies,
    pub(super) changes: Vec<String>,
    pub(super) sources: BTreeMap<String, String>,
}

/// Reads the files and compares them with what is in force, on a thread of its own and without holding the state: for thousands of
/// guests that takes parts of a second, in which agents are to be answered.
pub(super) async fn plan_aside(
    current: Policies,
    sources: BTreeMap<String, String>,
    level: FeatureLevel,
) -> Result<Planned, Denied> {
    let work = move || -> Result<Planned, Denied> {
        let (policies, mut changes) = plan(&current, &sources)?;
        check_size(&policies, &sources, level)?;
        changes.extend(policies.left_behind(&current));
        changes.extend(policies.unmet());
        Ok(Planned { policies, changes, sources })
    };
    let planned = tokio::task::spawn_blocking(work).await;
    planned.unwrap_or_else(|error| Err(Denied::NoLeader(format!("the files could not be read: {error}"))))
}

/// Policies are decided on in one entry of the log, with their files. Those that do not fit never will, but for the upgrade of a
/// voter: whoever asks is not to be sent away until somebody leads who could.
fn check_size(policies: &Policies, sources: &BTreeMap<String, String>, level: FeatureLevel) -> Result<(), Denied> {
    let refuse = |error: &dyn std::fmt::Display| Denied::Refused(error.to_string());
    let json = serde_json::to_vec(&(policies, sources)).map_err(|error| refuse(&error))?;
    let bytes = json.len().saturating_add(AROUND_BYTES);
    if bytes > DECLARED_BYTES_MAX {
        let why = format!(
            "these policies are {bytes} bytes of JSON, their files with all comments included, and at most {DECLARED_BYTES_MAX} are \
             possible"
        );
        return Err(Denied::Refused(why));
    }
    let bytes = pack(json, level).map_err(|error| refuse(&error))?.len().saturating_add(AROUND_BYTES);
    let (most, until) = if level < FeatureLevel::PACKED {
        (ENTRY_BYTES_BEFORE, ". More are as soon as all supervisors are upgraded: `holdfast status` names who is to be")
    } else {
        (ENTRY_BYTES_MAX, "")
    };
    if bytes <= most {
        return Ok(());
    }
    let why = format!(
        "these policies take {bytes} bytes in the log, their files with all comments included, and at most {most} are possible{until}"
    );
    Err(Denied::Refused(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKED: FeatureLevel = FeatureLevel::PACKED;
    const BEFORE: FeatureLevel = FeatureLevel::REVOCATION;

    /// Text that zstd makes little of, as names, addresses and MAC addresses are: digits by xorshift.
    fn digits(bytes: usize, seed: u64) -> String {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let digit = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            char::from_digit(u32::try_from(state >> 60).unwrap_or(0), 16).unwrap_or('0')
        };
        std::iter::repeat_with(digit).take(bytes).collect()
    }

    fn files(text: String) -> BTreeMap<String, String> {
        BTreeMap::from([("all.yaml".to_owned(), text)])
    }

    #[test]
    fn policies_that_fit_into_no_entry_are_refused_for_good() {
        let check = |text: String, level| check_size(&Policies::default(), &files(text), level);
        assert_eq!(check("#".repeat(ENTRY_BYTES_BEFORE / 2), BEFORE), Ok(()));
        assert_eq!(check("#".repeat(2 * ENTRY_BYTES_MAX), PACKED), Ok(()), "packed");
        let said = |text: String, level| match check(text, level) {
            Err(Denied::Refused(why)) => why,
            other => panic!("{other:?}"),
        };
        let why = said("#".repeat(ENTRY_BYTES_BEFORE), BEFORE);
        assert!(why.contains("at most") && why.contains("upgraded"), "{why}");
        let why = said(digits(2 * ENTRY_BYTES_MAX, 7), PACKED);
        assert!(why.contains("at most") && !why.contains("upgraded"), "{why}");
        let why = said("#".repeat(DECLARED_BYTES_MAX), PACKED);
        assert!(why.contains("bytes of JSON"), "{why}");
    }

    /// What a guest of an ordinary cluster is declared as: two disks, a network card, labels, and much that no two of them share.
    fn guest(row: u64) -> String {
        // An odd factor: no two rows get the same.
        let [.., a, b, c] = row.wrapping_mul(0x9e_3779).to_be_bytes();
        let image = digits(16, row + 1);
        format!(
            "  guest-{a:02x}-{row:05}:\n    labels: {{ app: app-{}, team: team-{}, tier: gold }}\n    priority: {}\n    \
             address: 10.{}.{}.{}\n    qemu:\n      memory: {}GiB\n      cpus: 4\n      disks:\n        \
             - {{ path: /srv/vol/{row:05}-{image}.qcow2, format: qcow2 }}\n        \
             - {{ path: /srv/vol/{row:05}-data.qcow2, format: qcow2 }}\n      \
             nics: [ {{ bridge: br0, mac: \"52:54:00:{a:02x}:{b:02x}:{c:02x}\" }} ]\n      agent: true\n",
            row % 50,
            row % 37,
            100 + row % 7,
            row >> 16,
            (row >> 8) & 255,
            row & 255,
            1 + row % 16,
        )
    }

    #[test]
    fn ten_thousand_guests_with_their_files_fit_into_one_entry() {
        let file = |number: u64| {
            let guests: String = (0..2_000).map(|row| guest(2_000 * number + row)).collect();
            (format!("guests-{number}.yaml"), format!("guests:\n{guests}"))
        };
        let sources: BTreeMap<String, String> = (0..5).map(file).collect();
        let (policies, _) = plan(&Policies::default(), &sources).unwrap();
        assert_eq!(policies.guests.len(), 10_000);
        assert_eq!(check_size(&policies, &sources, PACKED), Ok(()));
        assert!(check_size(&policies, &sources, BEFORE).is_err(), "not before all can unpack it");
    }
}
