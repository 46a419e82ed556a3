//! Metrics of a Prometheus page that the guest serves to itself (text exposition format 0.0.4).

use std::{collections::BTreeMap, time::Duration};

use holdfast_policies::probe::MetricProbe;

use super::look;
use crate::{
    address::fill_in,
    channel::GuestChannel,
    exec::how_it_ended,
    finding::Finding,
    inside::{LOOPBACK, could_not_ask, for_programs, whole_seconds},
};

/// Only the lines of the one metric leave the guest: pages are often larger than what an agent passes on. They are chosen while
/// the page comes, so that one of any size takes no memory of the guest; but of 64 MiB alone, since a line without end would. What
/// went wrong is told as the program and its exit code. Without curl there is no https: wget would want a valid certificate,
/// which a loopback address cannot have. 143 is busybox's `timeout`, whose signal has ended wget.
const PAGE: &str = r#"end='
'
fetch() {
  page=$({ code=$({ { "$@" 3>&- 4>&-; echo $? >&4; } | { head -c 67108864; cat > /dev/null; } | grep "^$name[[:blank:]{]" | { head -n 1000 >&3; cat > /dev/null; }; } 4>&1); echo "${code:-126}"; } 3>&1)
  code=${page##*"$end"}; page=${page%"$code"}
}
name=$2; with=curl; code=127
command -v curl > /dev/null && fetch curl -sS -g -f -k --noproxy '*' -m "$3" "$1"
if [ "$code" -ge 126 ]; then
  case $1 in https:*) echo "only curl asks over https, and it cannot be run" >&2; exit 126;; esac
  with=wget; fetch timeout "$3" wget -q -O - "$1"
  [ "$code" -lt 126 ] || [ "$code" -eq 143 ] || { echo "neither curl nor wget can be run" >&2; exit 126; }
fi
[ "$code" -eq 0 ] || { echo "$with $code"; exit 5; }
printf '%s' "$page"
exit 0"#;

/// Reads the page and compares.
pub(crate) async fn metric(channel: &dyn GuestChannel, probe: &MetricProbe, timeout: Duration) -> Finding {
    let Some(url) = fill_in(&probe.url, Some(LOOPBACK)) else { return Finding::unknown("the guest has no address") };
    let seconds = whole_seconds(for_programs(timeout));
    let said = match look(channel, PAGE, &[&url, &probe.name, &seconds], timeout).await {
        Ok(said) => said,
        Err(finding) => return finding,
    };
    match said.code {
        0 => of_page(whole_lines(&said.text), probe),
        5 if is_our_fault(&said.text) => {
            Finding::unknown(format!("{url} cannot be asked: {}", how_it_ended(&said.result)))
        }
        5 => Finding::fail(format!("{url} cannot be read: {}", how_it_ended(&said.result))),
        _ => said.odd(),
    }
}

/// Where the way out has cut the text, its last line may lack digits.
fn whole_lines(text: &str) -> &str {
    text.rsplit_once('\n').map_or("", |(lines, _)| lines)
}

/// Whether `curl 6` and the like says that the question could not be put.
fn is_our_fault(said: &str) -> bool {
    let told = said.trim().split_once(' ').and_then(|(program, code)| Some((program, code.parse::<i32>().ok()?)));
    told.is_some_and(|(program, code)| could_not_ask(program, code))
}

/// Judges the lines of a page; those of other metrics do not matter.
pub(crate) fn of_page(page: &str, probe: &MetricProbe) -> Finding {
    let wanted = probe.value.as_f64().unwrap_or(f64::NAN);
    let has =
        |labels: &BTreeMap<String, String>| probe.labels.iter().all(|(key, value)| labels.get(key) == Some(value));
    let series: Vec<f64> = page
        .lines()
        .filter_map(|line| read(line, &probe.name))
        .filter(|(labels, _)| has(labels))
        .map(|(_, v)| v)
        .collect();
    let wrong = series.iter().find(|found| !probe.op.holds(**found, wanted));
    match (series.first(), wrong) {
        // An exporter that has nothing to say of it accuses nobody (S5).
        (None, _) => Finding::unknown(format!("the page has no series {} with these labels", probe.name)),
        (Some(_), Some(found)) => {
            Finding::fail(format!("{} is {found}, wanted {} {}", probe.name, probe.op, probe.value))
        }
        (Some(found), None) if series.len() == 1 => Finding::pass(format!("{} is {found}", probe.name)),
        (Some(_), None) => {
            Finding::pass(format!("all {} series of {} are {} {}", series.len(), probe.name, probe.op, probe.value))
        }
    }
}

/// What may stand between the parts of a line.
const BLANKS: [char; 2] = [' ', '\t'];

/// Whether a line begins with the name of a metric, and not with a longer one.
pub(crate) fn is_of(line: &[u8], name: &str) -> bool {
    let next = line.strip_prefix(name.as_bytes()).and_then(<[u8]>::first);
    next.is_some_and(|next| matches!(next, b'{' | b' ' | b'\t'))
}

/// One line: its labels and its value; `None` for another metric, a comment, or what is no line of this format.
fn read(line: &str, name: &str) -> Option<(BTreeMap<String, String>, f64)> {
    let rest = line.strip_prefix(name).filter(|_| is_of(line.as_bytes(), name))?;
    let (labels, rest) = match rest.trim_start_matches(BLANKS).strip_prefix('{') {
        Some(inside) => labels(inside)?,
        None => (BTreeMap::new(), rest),
    };
    let value = rest.split_ascii_whitespace().next()?;
    Some((labels, value.parse().ok()?))
}

/// Labels up to the closing brace, and what comes after it. Values may hold escaped quotes, braces and commas.
fn labels(text: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let (mut labels, mut rest) = (BTreeMap::new(), text);
    loop {
        rest = rest.trim_start_matches(BLANKS).trim_start_matches(',').trim_start_matches(BLANKS);
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (key, after) = rest.split_once("=\"")?;
        let (mut value, mut end, mut escaped) = (String::new(), None, false);
        for (at, c) in after.char_indices() {
            match (escaped, c) {
                (true, 'n') => value.push('\n'),
                (true, c) => value.push(c),
                (false, '\\') => {}
                (false, '"') => {
                    end = Some(at);
                    break;
                }
                (false, c) => value.push(c),
            }
            escaped = !escaped && c == '\\';
        }
        rest = after.get(end?.saturating_add(1)..)?;
        labels.insert(key.trim().to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use holdfast_policies::{observe::Outcome, probe::Comparison};

    use super::*;

    const PAGE: &str = r#"pg_up 1
pg_lag{db="a",role="x"} 3.5 1700000000000
pg_lag{db="b, \"c\"}",} 9
pg_lagging 7
pg_odd NaN
pg_high +Inf
pg_broken{a="b 5
pg_apart {db="a", role="x" } 4
"#;

    fn judged(name: &str, labels: &[(&str, &str)], op: Comparison, value: i64) -> Outcome {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let probe = MetricProbe { url: String::new(), name: name.to_owned(), labels, op, value: value.into() };
        of_page(PAGE, &probe).outcome
    }

    #[test]
    fn series_are_chosen_by_name_and_labels_and_all_of_them_must_hold() {
        use Comparison::{AtLeast, Equal, Greater, Less, NotEqual};
        assert_eq!(judged("pg_up", &[], Equal, 1), Outcome::Pass);
        assert_eq!(judged("pg_lag", &[], Less, 10), Outcome::Pass);
        assert_eq!(judged("pg_lag", &[], Less, 5), Outcome::Fail, "one of two is more");
        assert_eq!(judged("pg_lag", &[("db", "a")], Less, 5), Outcome::Pass);
        assert_eq!(judged("pg_lag", &[("db", "b, \"c\"}")], AtLeast, 9), Outcome::Pass);
        assert_eq!(judged("pg_high", &[], Greater, 9), Outcome::Pass);
        assert_eq!(judged("pg_apart", &[("db", "a"), ("role", "x")], Equal, 4), Outcome::Pass);
        assert_eq!(read("pg_tab\t5 1700000000000", "pg_tab"), Some((BTreeMap::new(), 5.0)));
        for op in [Equal, NotEqual, Less, AtLeast] {
            assert_eq!(judged("pg_odd", &[], op, 1), Outcome::Fail, "what is no number compares with nothing");
        }
    }

    #[test]
    fn a_series_that_is_not_there_is_unknown() {
        for (name, labels) in
            [("pg_none", &[][..]), ("pg_lag", &[("db", "z")][..]), ("pg_broken", &[][..]), ("pg", &[][..])]
        {
            assert_eq!(judged(name, labels, Comparison::Equal, 1), Outcome::Unknown, "{name}");
        }
    }
}
