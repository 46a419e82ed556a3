//! Long JSON made short: what is declared of thousands of guests is one entry of the log, and says the same again and again.
//!
//! ```text
//!  zstd:KLUv/…      base64 of what zstd makes of the JSON
//! ```
//! It is text, because entries and snapshots travel within JSON, where bytes that are no text take four times their size. Short JSON
//! stays as it is, so that people can read a log; and none is packed before every voter can unpack it (R26).

use std::{
    borrow::Cow,
    io::{self, Read as _},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use holdfast_policies::feature_level::FeatureLevel;

/// What begins with this is packed; no JSON does.
const MARK: &str = "zstd:";

/// JSON of so many bytes is packed. Decisions are a few kilobytes, and so is what is declared of some hundred guests: those stay
/// as people can read them.
pub const PACKED_FROM: usize = 256 * 1024;

/// Most bytes that are unpacked: as many as a snapshot may have. The same for everybody who applies an entry, or their states would
/// differ.
const UNPACKED_BYTES_MAX: usize = 256 * 1024 * 1024;

/// How hard zstd tries, of 1 to 22. What is declared of 10,000 guests becomes a tenth with 3, in 60 ms; with 12 a sixth less, in ten
/// times as long.
const EFFORT: i32 = 3;

/// Why something packed cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum Unpackable {
    /// It was cut, or changed.
    #[error("it is not base64: {0}")]
    Base64(base64::DecodeError),
    /// It was cut, or changed.
    #[error("zstd cannot read it: {0}")]
    Zstd(io::Error),
    /// It would fill the memory.
    #[error("it is more than {UNPACKED_BYTES_MAX} bytes")]
    Long,
}

/// JSON as it is committed or kept at this feature level.
///
/// # Errors
/// When there is no memory for it.
pub fn pack(json: Vec<u8>, level: FeatureLevel) -> io::Result<Vec<u8>> {
    if !is_to_be_packed(json.len(), level) {
        return Ok(json);
    }
    let short = zstd::bulk::compress(&json, EFFORT)?;
    let mut packed = String::from(MARK);
    BASE64_STANDARD.encode_string(short, &mut packed);
    Ok(packed.into_bytes())
}

/// What nobody would unpack again is left as it is: a voter could not start from its own snapshot.
fn is_to_be_packed(bytes: usize, level: FeatureLevel) -> bool {
    level >= FeatureLevel::PACKED && (PACKED_FROM..=UNPACKED_BYTES_MAX).contains(&bytes)
}

/// The JSON, whether it was packed or not.
///
/// # Errors
/// [`Unpackable`]
pub fn unpack(bytes: &[u8]) -> Result<Cow<'_, [u8]>, Unpackable> {
    unpack_within(bytes, UNPACKED_BYTES_MAX)
}

fn unpack_within(bytes: &[u8], bytes_max: usize) -> Result<Cow<'_, [u8]>, Unpackable> {
    let Some(text) = bytes.strip_prefix(MARK.as_bytes()) else { return Ok(Cow::Borrowed(bytes)) };
    let short = BASE64_STANDARD.decode(text).map_err(Unpackable::Base64)?;
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    let reader = zstd::stream::read::Decoder::new(short.as_slice()).map_err(Unpackable::Zstd)?;
    let mut json = Vec::new();
    reader.take(limit).read_to_end(&mut json).map_err(Unpackable::Zstd)?;
    if json.len() > bytes_max { Err(Unpackable::Long) } else { Ok(Cow::Owned(json)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(bytes: usize) -> Vec<u8> {
        format!("\"{}\"", "guest ".repeat(bytes / 6)).into_bytes()
    }

    #[test]
    fn long_json_becomes_short_text_and_is_read_back_as_it_was() {
        let long = json(4 * PACKED_FROM);
        let packed = pack(long.clone(), FeatureLevel::PACKED).unwrap();
        assert!(packed.len() < long.len() / 8, "{} of {}", packed.len(), long.len());
        assert!(packed.is_ascii() && serde_json::from_slice::<serde_json::Value>(&packed).is_err());
        assert_eq!(unpack(&packed).unwrap(), long);
    }

    #[test]
    fn short_json_stays_as_people_can_read_it() {
        let short = json(1_000);
        assert_eq!(pack(short.clone(), FeatureLevel::HIGHEST).unwrap(), short);
        assert_eq!(unpack(&short).unwrap(), short);
    }

    #[test]
    fn nothing_is_packed_before_every_voter_can_unpack_it() {
        let long = json(4 * PACKED_FROM);
        for level in [FeatureLevel::BIRTH, FeatureLevel::REVOCATION] {
            assert_eq!(pack(long.clone(), level).unwrap(), long, "level {level}");
        }
    }

    #[test]
    fn nothing_is_packed_that_would_not_be_unpacked_again() {
        let sizes = [PACKED_FROM - 1, PACKED_FROM, UNPACKED_BYTES_MAX, UNPACKED_BYTES_MAX + 1];
        assert_eq!(sizes.map(|bytes| is_to_be_packed(bytes, FeatureLevel::PACKED)), [false, true, true, false]);
    }

    #[test]
    fn what_was_cut_or_would_fill_the_memory_is_refused() {
        let packed = pack(json(4 * PACKED_FROM), FeatureLevel::PACKED).unwrap();
        assert!(matches!(unpack_within(&packed, PACKED_FROM), Err(Unpackable::Long)));
        let cut = packed.split_at(packed.len() / 8 * 4).0;
        assert!(unpack(cut).is_err());
        assert!(matches!(unpack(b"zstd:AAAA"), Err(Unpackable::Zstd(_))));
        assert!(matches!(unpack(b"zstd:{}"), Err(Unpackable::Base64(_))));
    }
}
