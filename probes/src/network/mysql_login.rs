//! How a password is shown to MySQL and MariaDB without saying it, and when it is said.

use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::finding::Finding;

/// Ways to log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    /// `mysql_native_password`.
    Native,
    /// `caching_sha2_password`.
    Sha2,
    /// `mysql_clear_password`, and what `caching_sha2_password` falls back to.
    Clear,
}

/// The way in that a server names; `None` where it is not known here.
pub(crate) fn way_in(name: &str) -> Option<Method> {
    match name {
        "mysql_native_password" => Some(Method::Native),
        "caching_sha2_password" => Some(Method::Sha2),
        "mysql_clear_password" => Some(Method::Clear),
        _ => None,
    }
}

/// What is said in place of a password where none may be said, so that the server refuses the login. Whoever hangs up in the middle of one,
/// or says what cannot be an answer, it counts as a broken connection, and after `max_connect_errors` of them it blocks this host for
/// every login, everybody's.
pub(crate) fn no_password(method: &str) -> &'static [u8] {
    match method {
        "mysql_native_password" => &[],
        // MariaDB's: a signature, which is of nothing.
        "client_ed25519" => &[0; 64],
        _ => &[0],
    }
}

/// A password, and whether nobody listens.
pub(crate) struct Login<'a> {
    pub password: &'a str,
    pub private: bool,
}

impl Login<'_> {
    /// What is sent as a proof.
    pub fn proof(&self, method: Option<Method>, nonce: &[u8]) -> Result<Vec<u8>, Finding> {
        let password = self.password.as_bytes();
        match method {
            Some(Method::Clear) if !self.private => {
                Err(Finding::unknown("the server wants the password in the clear: set `tls`"))
            }
            Some(Method::Clear) => Ok([password, &[0]].concat()),
            Some(Method::Native | Method::Sha2) if password.is_empty() => Ok(Vec::new()),
            Some(Method::Native) => {
                let once = Sha1::digest(password);
                let key = Sha1::new().chain_update(nonce).chain_update(Sha1::digest(once)).finalize();
                Ok(both(&once, &key))
            }
            Some(Method::Sha2) => {
                let once = Sha256::digest(password);
                let key = Sha256::new().chain_update(Sha256::digest(once)).chain_update(nonce).finalize();
                Ok(both(&once, &key))
            }
            None => Err(Finding::unknown("the server wants a way to log in that is not supported")),
        }
    }
}

fn both(one: &[u8], other: &[u8]) -> Vec<u8> {
    one.iter().zip(other).map(|(one, other)| one ^ other).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a server computes from the stored double hash must give the single one back.
    #[test]
    fn a_proof_convinces_a_server_that_knows_only_the_stored_hash() {
        let (login, nonce) = (Login { password: "secret", private: false }, [7; 20]);
        let stored = Sha1::digest(Sha1::digest(b"secret"));
        let key = Sha1::new().chain_update(nonce).chain_update(stored).finalize();
        let once = both(&login.proof(Some(Method::Native), &nonce).unwrap(), &key);
        assert_eq!(Sha1::digest(once), stored);
        let stored = Sha256::digest(Sha256::digest(b"secret"));
        let key = Sha256::new().chain_update(stored).chain_update(nonce).finalize();
        let once = both(&login.proof(Some(Method::Sha2), &nonce).unwrap(), &key);
        assert_eq!(Sha256::digest(once), stored);
    }

    #[test]
    fn a_password_is_said_only_where_nobody_listens() {
        let login = |private| Login { password: "secret", private }.proof(Some(Method::Clear), &[]);
        assert!(login(false).is_err());
        assert_eq!(login(true).unwrap(), b"secret\0");
    }
}
