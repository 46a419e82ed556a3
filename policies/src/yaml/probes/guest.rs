//! Questions that are asked in the guest, through its agent.

use std::{collections::BTreeMap, path::PathBuf};

use super::shared::{lines, pattern};
use crate::{
    probe::{
        Comparison, ExecProbe, FileProbe, HeartbeatProbe, MetricProbe, Probe, ProcessProbe, Processes, SystemdProbe,
    },
    time::Span,
    yaml::{fields::Keys, text::quoted, value::Value},
};

const EXEC: Keys = Keys {
    known: &["run", "codes", "output", "output_matches"],
    later: &[],
    renamed: &[("code", "write `codes: [0, 3]`")],
};
const FILE: Keys = Keys { known: &["path", "max_age", "contains", "matches"], later: &[], renamed: &[] };
const SYSTEMD: Keys = Keys { known: &["unit", "steady_for"], later: &[], renamed: &[] };
const PROCESS: Keys =
    Keys { known: &["name", "pid_file", "count"], later: &[], renamed: &[("pidfile", "write `pid_file`")] };
const COUNT: Keys = Keys { known: &["min", "max"], later: &[], renamed: &[] };
const METRIC: Keys = Keys { known: &["url", "name", "labels", "op", "value"], later: &[], renamed: &[] };
const HEARTBEAT: Keys =
    Keys { known: &["file", "max_age", "down_for"], later: &[], renamed: &[("path", "write `file`")] };
const NOTHING: Keys = Keys { known: &[], later: &[], renamed: &[] };

/// Most exit codes that pass; beyond them, hardly anything fails.
const CODES_MAX: usize = 32;
/// Longest name of a process that the kernel keeps, in bytes (proc(5), `comm`).
const COMM_BYTES_MAX: usize = 15;
/// Longest name of a unit (systemd.unit(5)).
const UNIT_BYTES_MAX: usize = 255;
/// Most processes that are counted.
const PROCESSES_MAX: u32 = 1_000_000;
/// Most labels that a series must have.
const LABELS_MAX: usize = 32;
/// Ages are whole seconds: file systems keep no finer ones that every guest's tools can show.
const AGE_MIN: Span = Span::secs(1);

pub(super) fn agent_ping(value: &Value<'_>) -> Option<Probe> {
    value.fields(&NOTHING).map(|_| Probe::AgentPing {})
}

pub(super) fn exec(value: &Value<'_>) -> Option<Probe> {
    let fields = value.fields(&EXEC)?;
    let run = fields.need("run", "run: [\"systemctl\", \"is-active\", \"nginx\"]", Value::command);
    let codes = fields.or("codes", vec![0], codes);
    let output = fields.optional("output", lines);
    let output_matches = fields.optional("output_matches", pattern);
    Some(Probe::Exec(ExecProbe { run: run?, codes: codes?, output: output?, output_matches: output_matches? }))
}

fn codes(value: &Value<'_>) -> Option<Vec<u8>> {
    let items = value.list("write the exit codes that pass: [0, 3]")?;
    if items.is_empty() || items.len() > CODES_MAX {
        return value
            .wrong(format!("`codes` has {} exit codes", items.len()), format!("give 1 to {CODES_MAX} of them"));
    }
    items.iter().map(|item| item.number(0..=u8::MAX)).collect()
}

pub(super) fn file(value: &Value<'_>) -> Option<Probe> {
    let fields = value.fields(&FILE)?;
    let path = fields.need("path", "path: /run/app/ready", Value::absolute_path);
    let max_age = fields.optional("max_age", |v| v.span_from(AGE_MIN));
    let contains = fields.optional("contains", lines);
    let matches = fields.optional("matches", pattern);
    Some(Probe::File(FileProbe { path: path?, max_age: max_age?, contains: contains?, matches: matches? }))
}

pub(super) fn systemd(value: &Value<'_>) -> Option<Probe> {
    let fields = value.fields(&SYSTEMD)?;
    let unit = fields.need("unit", "unit: nginx.service", unit);
    let steady_for = fields.or("steady_for", Span::secs(10), Value::span);
    Some(Probe::Systemd(SystemdProbe { unit: unit?, steady_for: steady_for? }))
}

fn unit(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    let fine = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    if text.len() > UNIT_BYTES_MAX || text.starts_with('-') || !text.chars().all(fine) {
        return value.wrong(format!("{} is not the name of a unit", quoted(text)), "write it like `nginx.service`");
    }
    // As systemctl takes it.
    Some(if text.contains('.') { text.to_owned() } else { format!("{text}.service") })
}

pub(super) fn process(value: &Value<'_>) -> Option<Probe> {
    let fields = value.fields(&PROCESS)?;
    let name = fields.optional("name", comm);
    let pid_file = fields.optional("pid_file", Value::absolute_path);
    let count = fields.or("count", (1, None), count);
    let which = match (name?, pid_file?) {
        (Some(name), None) => Processes::Name(name),
        (None, Some(path)) => Processes::PidFile(path),
        (None, None) => {
            return value.wrong("`process` names no process", "add `name: nginx`, or `pid_file: /run/nginx.pid`");
        }
        (Some(_), Some(_)) => return value.wrong("`process` has both `name` and `pid_file`", "leave one of them out"),
    };
    let (least, most) = count?;
    if matches!(which, Processes::PidFile(_)) && least > 1 {
        return value.wrong("`count` asks for more processes than a `pid_file` names", "leave `count` out");
    }
    Some(Probe::Process(ProcessProbe { which, least, most }))
}

fn comm(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    if text.len() > COMM_BYTES_MAX {
        let short: String = text.chars().take(COMM_BYTES_MAX).collect();
        return value.wrong(
            format!("the kernel keeps only {COMM_BYTES_MAX} bytes of a process's name, and {} is longer", quoted(text)),
            format!("write {}, as `ps -o comm` shows it", quoted(&short)),
        );
    }
    Some(text.to_owned())
}

fn count(value: &Value<'_>) -> Option<(u32, Option<u32>)> {
    let fields = value.fields(&COUNT)?;
    let least = fields.or("min", 1, |v| v.number(0..=PROCESSES_MAX));
    let most = fields.optional("max", |v| v.number(0..=PROCESSES_MAX));
    let (least, most) = (least?, most?);
    if most.is_some_and(|most| most < least) {
        return value.wrong(format!("`max` is less than `min`, which is {least}"), "no number would pass: raise `max`");
    }
    Some((least, most))
}

pub(super) fn metric(value: &Value<'_>) -> Option<Probe> {
    let fields = value.fields(&METRIC)?;
    let url = fields.need("url", "url: \"http://{address}:9187/metrics\"", |v| v.url(true));
    let name = fields.need("name", "name: pg_up", metric_name);
    let labels = fields.or("labels", BTreeMap::new(), labels);
    let op = fields.or("op", Comparison::Equal, |v| v.one_of(&Comparison::ALL));
    let value = fields.need("value", "value: 1", number);
    Some(Probe::Metric(MetricProbe { url: url?, name: name?, labels: labels?, op: op?, value: value? }))
}

fn metric_name(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    if text.starts_with(|c: char| c.is_ascii_digit()) || !text.chars().all(fine) {
        return value.wrong(
            format!("{} is not the name of a metric", quoted(text)),
            "letters, digits, `_` and `:`; labels go into `labels`",
        );
    }
    Some(text.to_owned())
}

fn labels(value: &Value<'_>) -> Option<BTreeMap<String, String>> {
    let entries = value.map()?;
    if entries.len() > LABELS_MAX {
        return value
            .wrong(format!("`labels` has more than {LABELS_MAX} labels"), "name those that tell the series apart");
    }
    entries.iter().map(|entry| Some((entry.name.to_owned(), entry.text()?.to_owned()))).collect()
}

fn number(value: &Value<'_>) -> Option<serde_json::Number> {
    let text = value.text()?;
    let whole = text.parse::<i64>().ok().map(serde_json::Number::from);
    let read = whole.or_else(|| text.parse::<f64>().ok().and_then(serde_json::Number::from_f64));
    match read {
        Some(number) => Some(number),
        None => value.wrong(
            format!("{} must be a number, not {}", quoted(value.name), quoted(text)),
            "write it like `1` or `0.95`",
        ),
    }
}

pub(super) fn heartbeat(value: &Value<'_>) -> Option<Probe> {
    let fields = value.fields(&HEARTBEAT)?;
    let file: Option<PathBuf> = fields.need("file", "file: /run/app/heartbeat", Value::absolute_path);
    let max_age = fields.need("max_age", "max_age: 10s", |v| v.span_from(AGE_MIN));
    let down_for = fields.or("down_for", Span::secs(600), Value::span);
    Some(Probe::Heartbeat(HeartbeatProbe { file: file?, max_age: max_age?, down_for: down_for? }))
}

#[cfg(test)]
mod tests {
    use crate::{
        probe::{Comparison, Probe, Processes},
        time::Span,
        yaml::{Source, parse},
    };

    /// Reads one probe; mistakes without their places.
    fn read(probe: &str) -> Result<Probe, Vec<String>> {
        let text = format!(
            "policies:\n  p:\n    match: {{ a: b }}\n    ladder: [page]\n    services:\n      s: {{ every: 5s, probe: {probe} }}\n"
        );
        let policies = parse(&[Source { name: "a.yaml", text: &text }])
            .map_err(|found| found.iter().map(|finding| finding.what.clone()).collect::<Vec<_>>())?;
        Ok(policies.policies.values().next().unwrap().services.values().next().unwrap().probe.clone())
    }

    #[test]
    fn every_kind_reads_as_it_is_meant() {
        let Probe::Exec(exec) =
            read(r#"{ exec: { run: [x, -q], codes: [0, 3], output: "ok", output_matches: '^\d+$' } }"#).unwrap()
        else {
            panic!()
        };
        assert_eq!(
            (exec.run, exec.codes, exec.output.as_deref()),
            (vec!["x".to_owned(), "-q".to_owned()], vec![0, 3], Some("ok"))
        );
        let Probe::File(file) = read("{ file: { path: /run/ready, max_age: 30s } }").unwrap() else { panic!() };
        assert_eq!((file.max_age, file.contains), (Some(Span::secs(30)), None));
        let Probe::Systemd(unit) = read("{ systemd: { unit: nginx } }").unwrap() else { panic!() };
        assert_eq!((unit.unit.as_str(), unit.steady_for), ("nginx.service", Span::secs(10)));
        let Probe::Process(process) = read("{ process: { name: nginx, count: { min: 2, max: 9 } } }").unwrap() else {
            panic!()
        };
        assert_eq!((process.which, process.least, process.most), (Processes::Name("nginx".to_owned()), 2, Some(9)));
        let metric = r#"{ metric: { url: "http://{address}:9187/metrics", name: pg_up, labels: { a: b }, op: ">=", value: 0.5 } }"#;
        let Probe::Metric(metric) = read(metric).unwrap() else { panic!() };
        assert_eq!((metric.op, metric.value.as_f64(), metric.labels.len()), (Comparison::AtLeast, Some(0.5), 1));
        let Probe::Heartbeat(beat) = read("{ heartbeat: { file: /run/beat, max_age: 10s } }").unwrap() else {
            panic!()
        };
        assert_eq!((beat.max_age, beat.down_for), (Span::secs(10), Span::secs(600)));
    }

    #[test]
    fn mistakes_say_what_would_be_right() {
        for (probe, expected) in [
            ("{ exec: { run: [x], codes: [] } }", "`codes` has 0 exit codes"),
            ("{ exec: { run: [x], output_matches: 'a(b' } }", "the pattern `a(b` cannot be used: unclosed group"),
            ("{ file: { path: run/ready } }", "`path` must be an absolute path without `..`, not `run/ready`"),
            ("{ file: { path: /a, max_age: 1ms } }", "`max_age` must be at least 1s, not `1ms`"),
            ("{ systemd: { unit: --all } }", "`--all` is not the name of a unit"),
            ("{ process: {} }", "`process` names no process"),
            ("{ process: { name: x, pid_file: /y } }", "`process` has both `name` and `pid_file`"),
            (
                "{ process: { name: a-very-long-process-name } }",
                "the kernel keeps only 15 bytes of a process's name, and `a-very-long-process-name` is longer",
            ),
            ("{ process: { name: x, count: { min: 3, max: 2 } } }", "`max` is less than `min`, which is 3"),
            (
                r#"{ metric: { url: "http://{address}/", name: "a{b}", value: 1 } }"#,
                "`a{b}` is not the name of a metric",
            ),
            (r#"{ metric: { url: "http://{address}/", name: a, op: "=>", value: 1 } }"#, "unknown op `=>`"),
            (r#"{ metric: { url: "http://{address}/", name: a, value: one } }"#, "`value` must be a number, not `one`"),
            ("{ heartbeat: { file: /run/beat } }", "`heartbeat` has no `max_age`"),
        ] {
            let found = read(probe).unwrap_err();
            assert!(found.len() == 1 && found[0].starts_with(expected), "{probe}: {found:?}");
        }
    }
}
