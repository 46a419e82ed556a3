//! What databases that are asked by queries have in common.

use holdfast_policies::probe::SqlProbe;

use crate::finding::Finding;

/// Most of what a server says that is read, in bytes, greetings and all rows together: a probe wants one value.
pub(crate) const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// Judges the first value of the first row; `None` is no row, or a null.
pub(crate) fn judge(value: Option<&Vec<u8>>, probe: &SqlProbe) -> Finding {
    let shown = value.map(|value| String::from_utf8_lossy(value).into_owned());
    match (&probe.expect, shown) {
        (None, _) => Finding::pass("the query is answered"),
        (Some(wanted), Some(found)) if *wanted == found => Finding::pass("the query gives what is wanted"),
        (Some(wanted), Some(found)) => Finding::fail(format!("the query gives {found:?}, wanted {wanted:?}")),
        (Some(wanted), None) => Finding::fail(format!("the query gives nothing, wanted {wanted:?}")),
    }
}
