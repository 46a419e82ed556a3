//! Who vouches for a request: a host, for whoever spoke to it, or an operator, by a certificate of their own.
//!
//! A name without more is an operator's in the journal, because their certificate says so. A name that a host has passed
//! on is followed by that host's: it is that host's word, and no more. Others read it in the journal, so that it is not taken where
//! it is no plain word.

use std::fmt;

use holdfast_policies::{
    names::HostName,
    operators::{Certificates, OperatorCertificate},
    rules::ClusterSettings,
};

use super::{
    Denied, Request,
    plain::{MACHINE_CHARACTERS_MAX, PERSON_CHARACTERS_MAX, REASON_CHARACTERS_MAX, plain},
};

/// Who vouches for a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Voucher {
    /// A host: whoever is root there, or holds its key, may have said it.
    Host(HostName),
    /// An operator.
    Operator(OperatorCertificate),
}

impl fmt::Display for Voucher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host) => write!(f, "host {host}"),
            Self::Operator(certificate) => write!(f, "{certificate}"),
        }
    }
}

impl Voucher {
    /// The request with the name that this voucher stands for.
    ///
    /// # Errors
    /// [`Denied::Refused`] when an operator speaks in another name than their own, and when a name or a reason is none that others
    /// could be shown.
    pub fn sign(&self, request: Request) -> Result<Request, Denied> {
        let sign = |person: String| match self {
            Self::Host(host) => {
                fit(&person, "name", PERSON_CHARACTERS_MAX)?;
                Ok(format!("{person} through {host}"))
            }
            Self::Operator(certificate) if certificate.name.as_str() == person => Ok(person),
            Self::Operator(certificate) => {
                Err(Denied::Refused(format!("the certificate is that of {}, and not of {person}", certificate.name)))
            }
        };
        Ok(match request {
            Request::Apply { sources, by, dry_run } => Request::Apply { sources, by: sign(by)?, dry_run },
            Request::Migrate { guest, to, cold, by } => Request::Migrate { guest, to, cold, by: sign(by)? },
            Request::Drain { host, by } => Request::Drain { host, by: sign(by)? },
            Request::Maintain { host, by } => Request::Maintain { host, by: sign(by)? },
            Request::Leave { host, reboot, by } => Request::Leave { host, reboot, by: sign(by)? },
            Request::Want { guest, wanted, by } => Request::Want { guest, wanted, by: sign(by)? },
            Request::Suspend { suspended, by } => Request::Suspend { suspended, by: sign(by)? },
            Request::Resume { host, by } => Request::Resume { host, by: sign(by)? },
            Request::ConfirmOff { host, person } => Request::ConfirmOff { host, person: sign(person)? },
            Request::AddVoter { host, by } => Request::AddVoter { host, by: sign(by)? },
            Request::PromoteVoter { host, by } => Request::PromoteVoter { host, by: sign(by)? },
            Request::RemoveVoter { host, force, by } => Request::RemoveVoter { host, force, by: sign(by)? },
            Request::LookedAfter { guest, by } => Request::LookedAfter { guest, by: sign(by)? },
            Request::LiftQuarantine { host, machine, by } => {
                machine.iter().try_for_each(|machine| fit(machine, "machine's id", MACHINE_CHARACTERS_MAX))?;
                Request::LiftQuarantine { host, machine, by: sign(by)? }
            }
            Request::TrustDevice { host, by } => Request::TrustDevice { host, by: sign(by)? },
            Request::ReleaseStormHold { by } => Request::ReleaseStormHold { by: sign(by)? },
            Request::DrillFence { host, level, by } => Request::DrillFence { host, level, by: sign(by)? },
            Request::AllowFence { host, by } => Request::AllowFence { host, by: sign(by)? },
            Request::Revoke { host, why, by } => {
                fit(&why, "reason", REASON_CHARACTERS_MAX)?;
                Request::Revoke { host, why, by: sign(by)? }
            }
            Request::Readmit { host, serial, by } => Request::Readmit { host, serial, by: sign(by)? },
            asked @ (Request::Status
            | Request::Simulate(_)
            | Request::Explain { .. }
            | Request::Journal { .. }
            | Request::Policies
            | Request::TestFence { .. }
            | Request::Voters) => asked,
        })
    }

    /// Whether the cluster takes an order, or a question, from this voucher.
    ///
    /// # Errors
    /// [`Denied::Refused`]
    pub fn permit(&self, settings: &ClusterSettings, order: bool) -> Result<(), Denied> {
        match self {
            Self::Operator(certificate) if settings.revokes(certificate) => {
                Err(Denied::Refused(format!("the {certificate} is revoked")))
            }
            Self::Host(_) if order && settings.operators == Certificates::Required => Err(Denied::Refused(
                "this cluster takes orders only with an operator's certificate: give yours with --identity".to_owned(),
            )),
            Self::Operator(_) | Self::Host(_) => Ok(()),
        }
    }

    /// Whether policies with these settings leave whoever applies them a way in. Certificates are required only by somebody
    /// who has one that works, and is not revoked by the same policies: otherwise nobody might be able to take it back.
    ///
    /// # Errors
    /// [`Denied::Refused`]
    pub fn keep_way_in(&self, wanted: &ClusterSettings) -> Result<(), Denied> {
        let why = match (wanted.operators, self) {
            (Certificates::Optional, _) => return Ok(()),
            (Certificates::Required, Self::Host(_)) => {
                "`operators: required` is taken only with an operator's certificate, so that it locks nobody out: give \
                 yours with --identity"
                    .to_owned()
            }
            (Certificates::Required, Self::Operator(certificate)) if wanted.revokes(certificate) => {
                format!("these policies would revoke the {certificate}, with which they are applied; let another do it")
            }
            (Certificates::Required, Self::Operator(_)) => return Ok(()),
        };
        Err(Denied::Refused(why))
    }
}

fn fit(text: &str, what: &str, most: usize) -> Result<(), Denied> {
    plain(text, what, most).map_err(Denied::Refused)
}

impl Request {
    /// Whether it begins something, and does not only ask.
    #[must_use]
    pub fn is_order(&self) -> bool {
        match self {
            Self::Status
            | Self::Explain { .. }
            | Self::Simulate(_)
            | Self::Journal { .. }
            | Self::Policies
            | Self::Voters
            | Self::TestFence { .. } => false,
            Self::Apply { dry_run, .. } => !dry_run,
            Self::Migrate { .. }
            | Self::Drain { .. }
            | Self::Maintain { .. }
            | Self::Leave { .. }
            | Self::Want { .. }
            | Self::Suspend { .. }
            | Self::Resume { .. }
            | Self::ConfirmOff { .. }
            | Self::AddVoter { .. }
            | Self::PromoteVoter { .. }
            | Self::RemoveVoter { .. }
            | Self::LookedAfter { .. }
            | Self::LiftQuarantine { .. }
            | Self::TrustDevice { .. }
            | Self::DrillFence { .. }
            | Self::AllowFence { .. }
            | Self::Revoke { .. }
            | Self::Readmit { .. }
            | Self::ReleaseStormHold { .. } => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use holdfast_policies::{
        names::OperatorName,
        operators::{Revoked, Serial},
        state::Wanted,
    };

    use super::{
        super::tests::{guest, host},
        *,
    };

    fn ann() -> Voucher {
        let name = OperatorName::new("ann").unwrap();
        Voucher::Operator(OperatorCertificate { name, serial: Serial::from_bytes(&[0x5f]) })
    }

    fn of_host() -> Voucher {
        Voucher::Host(host("h1"))
    }

    /// Every order, by this person.
    fn orders(by: &str) -> Vec<Request> {
        let (h, g, by) = (|| host("h2"), || guest("web-1"), || by.to_owned());
        vec![
            Request::Apply { sources: BTreeMap::new(), by: by(), dry_run: false },
            Request::Migrate { guest: g(), to: None, cold: false, by: by() },
            Request::Drain { host: h(), by: by() },
            Request::Maintain { host: h(), by: by() },
            Request::Leave { host: h(), reboot: true, by: by() },
            Request::Want { guest: g(), wanted: Wanted::Stopped, by: by() },
            Request::Suspend { suspended: true, by: by() },
            Request::Resume { host: h(), by: by() },
            Request::ConfirmOff { host: h(), person: by() },
            Request::AddVoter { host: h(), by: by() },
            Request::PromoteVoter { host: h(), by: by() },
            Request::RemoveVoter { host: h(), force: true, by: by() },
            Request::LookedAfter { guest: g(), by: by() },
            Request::LiftQuarantine { host: h(), machine: None, by: by() },
            Request::TrustDevice { host: h(), by: by() },
            Request::DrillFence { host: h(), level: 1, by: by() },
            Request::AllowFence { host: h(), by: by() },
            Request::ReleaseStormHold { by: by() },
            Request::Revoke { host: h(), why: "stolen".to_owned(), by: by() },
            Request::Readmit { host: h(), serial: Serial::from_bytes(&[0x5f]), by: by() },
        ]
    }

    fn questions() -> Vec<Request> {
        vec![
            Request::Status,
            Request::Explain { guest: guest("web-1") },
            Request::Journal { last: 1 },
            Request::Policies,
            Request::Voters,
            Request::TestFence { host: host("h2"), from: None },
            Request::Apply { sources: BTreeMap::new(), by: "ann".to_owned(), dry_run: true },
        ]
    }

    #[test]
    fn a_name_without_a_host_behind_it_is_a_certificates() {
        for (order, through) in orders("ann").into_iter().zip(orders("ann through h1")) {
            assert_eq!(ann().sign(order.clone()), Ok(order.clone()));
            assert_eq!(of_host().sign(order), Ok(through));
        }
    }

    #[test]
    fn an_operator_speaks_in_no_other_name_than_their_own() {
        for name in ["bob", "ann through h1", "Ann", ""] {
            for order in orders(name) {
                assert!(matches!(ann().sign(order), Err(Denied::Refused(why)) if why.contains("ann")), "{name}");
            }
        }
    }

    #[test]
    fn what_others_would_be_shown_is_plain_and_short() {
        for name in ["", "\u{1b}]0;x\u{7}ann", "ann\nbob", &"a".repeat(PERSON_CHARACTERS_MAX + 1)] {
            for order in orders(name) {
                assert!(matches!(of_host().sign(order), Err(Denied::Refused(_))), "{name:?}");
            }
        }
        let (bad, by) = ("stolen\u{1b}[8m".to_owned(), "ann".to_owned());
        for voucher in [ann(), of_host()] {
            let revoke = Request::Revoke { host: host("h2"), why: bad.clone(), by: by.clone() };
            assert!(voucher.sign(revoke).is_err());
            let lift = Request::LiftQuarantine { host: host("h2"), machine: Some(bad.clone()), by: by.clone() };
            assert!(voucher.sign(lift).is_err());
        }
    }

    #[test]
    fn a_host_gives_no_orders_where_certificates_are_required_and_may_ask() {
        let (optional, required) = (
            ClusterSettings::default(),
            ClusterSettings { operators: Certificates::Required, ..ClusterSettings::default() },
        );
        for order in orders("ann") {
            assert!(order.is_order(), "{order:?}");
            assert_eq!(of_host().permit(&optional, order.is_order()), Ok(()));
            assert!(of_host().permit(&required, order.is_order()).is_err(), "{order:?}");
            assert_eq!(ann().permit(&required, order.is_order()), Ok(()));
        }
        for question in questions() {
            assert!(!question.is_order(), "{question:?}");
            assert_eq!(of_host().permit(&required, question.is_order()), Ok(()));
        }
    }

    #[test]
    fn a_revoked_certificate_neither_orders_nor_asks() {
        for revoked in ["ann", "serial:5f"] {
            let revoked_operators = [revoked.parse::<Revoked>().unwrap()].into();
            let settings = ClusterSettings { revoked_operators, ..ClusterSettings::default() };
            for order in [true, false] {
                let denied = ann().permit(&settings, order).unwrap_err().to_string();
                assert_eq!(denied, "the certificate 5f of ann is revoked");
            }
            assert_eq!(of_host().permit(&settings, true), Ok(()));
        }
    }

    #[test]
    fn certificates_are_required_only_by_somebody_who_keeps_one() {
        let mut wanted = ClusterSettings { operators: Certificates::Required, ..ClusterSettings::default() };
        assert_eq!(ann().keep_way_in(&wanted), Ok(()));
        assert!(of_host().keep_way_in(&wanted).is_err());
        wanted.revoked_operators = ["bob".parse::<Revoked>().unwrap()].into();
        assert_eq!(ann().keep_way_in(&wanted), Ok(()));
        wanted.revoked_operators = ["ann".parse::<Revoked>().unwrap()].into();
        assert!(ann().keep_way_in(&wanted).is_err());
        wanted.operators = Certificates::Optional;
        assert_eq!((ann().keep_way_in(&wanted), of_host().keep_way_in(&wanted)), (Ok(()), Ok(())));
    }
}
