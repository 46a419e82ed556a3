//! Answers on their way between supervisors, and to operators: the status of thousands of guests fits into no frame.

use holdfast_policies::feature_level::FeatureLevel;

use super::{Answer, Denied};
use crate::{
    packed::{pack, unpack},
    rpc::BODY_BYTES_MAX,
};

/// The answer as it goes into a frame: packed where it fits into none. Whoever cannot unpack it could not have been answered at all.
///
/// # Errors
/// What is wrong with it.
pub fn write_answer(answered: &Result<Answer, Denied>) -> Result<Vec<u8>, String> {
    let json = serde_json::to_vec(answered).map_err(|error| error.to_string())?;
    if json.len() <= BODY_BYTES_MAX {
        return Ok(json);
    }
    pack(json, FeatureLevel::PACKED).map_err(|error| error.to_string())
}

/// Reads what [`write_answer`] has written.
///
/// # Errors
/// What is wrong with it.
pub fn read_answer(body: &[u8]) -> Result<Result<Answer, Denied>, String> {
    let json = unpack(body).map_err(|error| error.to_string())?;
    serde_json::from_slice(&json).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_fits_into_no_frame_is_packed_and_a_short_one_is_what_it_was() {
        for bytes in [10, BODY_BYTES_MAX] {
            let answer = Ok(Answer::Accepted { what: "guest ".repeat(bytes / 6 + 1) });
            let body = write_answer(&answer).unwrap();
            assert!(body.len() < BODY_BYTES_MAX);
            assert_eq!(body.starts_with(b"{"), bytes == 10);
            assert_eq!(read_answer(&body).unwrap(), answer);
        }
        assert!(read_answer(b"nonsense").is_err());
    }
}
