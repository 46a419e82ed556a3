//! An operator's own way to the coordinator: by their certificate, and past every other host.
//!
//! ```text
//!  operator -- "who coordinates?" --> any voter:       it does itself, or says where
//!  operator -- the request ---------> the coordinator: over a connection on which the operator's certificate was verified
//! ```
//! A host that passed the request on could only give its own word for it. A host that lies about who coordinates gets a
//! request of which it can make nothing: the certificate counts for the connection alone.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use holdfast_policies::{
    hostfile::IdentityFile,
    names::{HostName, OperatorName},
    operators::OperatorCertificate,
    time::{WallTime, millis},
};

use crate::{
    desk::{Answer, Denied, Request, Voucher, read_answer},
    pki::{self, PkiError, TlsFiles, Validity},
    rpc::{CallError, Channel, Client},
};

/// How long a coordinator is looked for: a little longer than an election and the new leader's first read round take.
const FIND_FOR: Duration = Duration::from_millis(1_500);

/// Pause between two searches.
const PAUSE: Duration = Duration::from_millis(100);

/// How long one host is asked who coordinates. What it answers is in its memory.
const FIND_LIMIT: Duration = Duration::from_secs(2);

/// A question that whoever coordinates answers in a few bytes, and nobody else.
const WHO: Request = Request::Journal { last: 0 };

/// How long before the end of their certificate operators are warned, whenever they use it.
const NEAR: Duration = Duration::from_secs(14 * 24 * 3600);

/// An operator who can speak for themselves.
pub struct Identity {
    voucher: Voucher,
    name: OperatorName,
    client: Client,
    voters: BTreeMap<HostName, SocketAddr>,
    validity: Validity,
}

impl Identity {
    /// Reads the certificate and the key; the paths are absolute.
    ///
    /// # Errors
    /// When a file is missing, wrong or exposed, or the certificate is not an operator's.
    pub fn open(file: IdentityFile) -> Result<Self, PkiError> {
        let IdentityFile { tls, voters } = file;
        let files = TlsFiles { authority: tls.ca, certificate: tls.certificate, key: tls.key };
        let certificate: OperatorCertificate = pki::own_operator(&files)?;
        let validity = pki::own_validity(&files)?;
        let client = Client::new(pki::client_config(&files)?);
        Ok(Self { name: certificate.name.clone(), voucher: Voucher::Operator(certificate), client, voters, validity })
    }

    /// Whose it is.
    #[must_use]
    pub fn name(&self) -> &OperatorName {
        &self.name
    }

    /// What whoever uses it should know of its end, if that is near or past, by the wall clock of where it is used. No voter says
    /// why it refuses one that has ended: it looks like a voter that is not reached.
    #[must_use]
    pub fn warning(&self, now: WallTime) -> Option<String> {
        let Validity { begins, ends } = self.validity;
        let (name, date, left) = (&self.name, ends.date(), ends.0.saturating_sub(now.0));
        let another = format!(
            "have another made where the cluster's authority is kept (`holdfast operator add {name} --ca DIR`)"
        );
        // One that was made for a few days is not warned of from its first.
        let near = millis(NEAR).min(ends.0.saturating_sub(begins.0) / 4);
        match left {
            0 => Some(format!("the certificate of {name} ended on {date}, and no voter takes it any more: {another}")),
            left if left <= near => Some(format!("the certificate of {name} ends on {date}: {another}")),
            _ => None,
        }
    }

    /// Finds who coordinates, and asks there, once.
    ///
    /// # Errors
    /// [`Denied`]
    pub async fn ask(&self, request: Request, limit: Duration) -> Result<Answer, Denied> {
        // The coordinator would say so too; but nothing has to be sent for it.
        let request = self.voucher.sign(request)?;
        let (host, address) = self.find().await?;
        self.call(&host, address, &request, limit).await.map_err(|lost| match lost {
            Lost::Denied(denied) => denied,
            Lost::Call(why) => Denied::NoLeader(format!("{why}; an instruction may still be carried out")),
        })
    }

    /// Whoever coordinates; patient with an election.
    async fn find(&self) -> Result<(HostName, SocketAddr), Denied> {
        let began = Instant::now();
        loop {
            match self.search().await {
                Err(Denied::NoLeader(_)) if began.elapsed() + PAUSE < FIND_FOR => tokio::time::sleep(PAUSE).await,
                found => return found,
            }
        }
    }

    /// Asks the voters in turn until one knows.
    async fn search(&self) -> Result<(HostName, SocketAddr), Denied> {
        let mut nobody = Vec::new();
        for (voter, address) in &self.voters {
            let said = match self.who(voter, *address).await {
                // One that has just lost the lead sends back: that is an election.
                Err(Denied::Elsewhere { host, address }) => self.who(&host, address).await,
                said => said,
            };
            match said {
                Err(denied @ (Denied::NoLeader(_) | Denied::Elsewhere { .. })) => {
                    nobody.push(denied.to_string());
                }
                said => return said,
            }
        }
        Err(Denied::NoLeader(match nobody.as_slice() {
            [] => "the identity file names nobody to ask".to_owned(),
            said => format!("no coordinator is found: {}", said.join("; ")),
        }))
    }

    /// Whether this host coordinates.
    async fn who(&self, host: &HostName, address: SocketAddr) -> Result<(HostName, SocketAddr), Denied> {
        match self.call(host, address, &WHO, FIND_LIMIT).await {
            Ok(_) => Ok((host.clone(), address)),
            Err(Lost::Denied(denied)) => Err(denied),
            Err(Lost::Call(why)) => Err(Denied::NoLeader(why)),
        }
    }

    async fn call(
        &self,
        host: &HostName,
        address: SocketAddr,
        request: &Request,
        limit: Duration,
    ) -> Result<Answer, Lost> {
        let lost = |why: String| Lost::Call(format!("{host} could not be asked: {why}"));
        let body = serde_json::to_vec(request).map_err(|error| lost(error.to_string()))?;
        let called = self.client.call(host, address, Channel::Client, body, limit).await;
        let body = called.map_err(|error: CallError| lost(error.to_string()))?;
        read_answer(&body).map_err(lost)?.map_err(Lost::Denied)
    }
}

/// Why a call brought no answer.
enum Lost {
    /// It brought a no.
    Denied(Denied),
    /// Nobody knows what came of it.
    Call(String),
}

#[cfg(test)]
mod tests;
